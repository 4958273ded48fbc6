import { readFileSync } from "node:fs";
import { arch, cpus, platform, totalmem } from "node:os";
import type { Pace } from "./row.ts";

/** What is measured, with what, and where. */
export interface Header {
  readonly package: string;
  readonly node: string;
  readonly v8: string;
  readonly peers: Readonly<Record<string, string>>;
  readonly cpu: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly platform: string;
  readonly pace: Pace;
}

const peers = [
  "generic-pool",
  "lightning-pool",
  "tarn",
  "effect",
  "async-sema",
  "@grpc/grpc-js",
  "lru-cache",
  "mitata",
] as const;

/** From where the compiled bench lies. */
const root = new URL("../../../", import.meta.url);

export function headerOf(pace: Pace): Header {
  const all = cpus();
  return {
    package: version("package.json"),
    node: process.versions.node,
    v8: process.versions.v8,
    peers: Object.fromEntries(peers.map((name) => [name, version(`node_modules/${name}/package.json`)])),
    cpu: all[0]?.model.trim() ?? "unknown",
    cpus: all.length,
    memoryBytes: totalmem(),
    platform: `${platform()}/${arch()}`,
    pace,
  };
}

function version(path: string): string {
  const { version } = JSON.parse(readFileSync(new URL(path, root), "utf8")) as { version: string };
  return version;
}

export function formatHeader(header: Header): string {
  const { cpu, cpus: count, pace } = header;
  const memory = (header.memoryBytes / 2 ** 30).toFixed(1);
  return [
    `rpc-conn-pool ${header.package}, node ${header.node}, V8 ${header.v8}`,
    Object.entries(header.peers)
      .map((peer) => peer.join(" "))
      .join(", "),
    `${cpu} x ${count}, ${memory} GiB, ${header.platform}`,
    `${pace.name}: ${pace.rounds} rounds of ${pace.sliceMs} ms for each contender of a race`,
  ].join("\n");
}
