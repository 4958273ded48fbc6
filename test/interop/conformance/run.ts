// Connect's conformance suite for gRPC clients, over each transport: how many of its cases pass, and which fail.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const suite = "connectrpc.com/conformance";
const version = "v1.0.7";

/** What all three can. */
const config = `features:
  versions: [HTTP_VERSION_2]
  protocols: [PROTOCOL_GRPC]
  codecs: [CODEC_PROTO]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP, COMPRESSION_DEFLATE]
  supportsTlsClientCerts: true
`;

/** grpc-js' client asks its channel for one message in a unary call: of a second one, and of what follows, it never hears. */
const ofTheClient = /\/unary\/multiple-responses$/;

const client = fileURLToPath(new URL("client.js", import.meta.url));

function go(folder: string, ...args: string[]): string {
  const { stdout, status } = spawnSync("go", args, {
    cwd: folder,
    env: { ...process.env, GOBIN: folder },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) throw new Error(`go ${args.join(" ")} ended with ${status}`);
  return stdout;
}

function run(folder: string, names: readonly string[]): void {
  go(folder, "install", `${suite}/cmd/connectconformance@${version}`);
  const { Dir: sources } = JSON.parse(go(folder, "mod", "download", "-json", `${suite}@${version}`));
  const configFile = join(folder, "config.yaml");
  writeFileSync(configFile, config);
  const options = ["--mode", "client", "--conf", configFile];
  for (const name of names) {
    const command = [process.execPath, client, name, join(sources, "proto")];
    const { stdout, stderr } = spawnSync(join(folder, "connectconformance"), [...options, "--", ...command], {
      encoding: "utf8",
      maxBuffer: 1 << 30,
    });
    const [, passed] = /^(\d+) passed, /m.exec(stdout) ?? [];
    if (passed === undefined) throw new Error(`the suite did not run:\n${stdout}${stderr}`);
    const failures = stdout.split(/^FAILED: /m).slice(1);
    process.stdout.write(`${name}: ${passed} passed, ${failures.length} failed\n`);
    for (const failure of failures) {
      const [test = "", why = ""] = failure.split("\n");
      process.stdout.write(`  ${test}${why.replace("\t", " ")}\n`);
      if (name === "dialGrpcHttp2" && !ofTheClient.test(test.replace(/:$/, ""))) process.exitCode = 1;
    }
  }
}

if (spawnSync("go", ["version"]).status === 0) {
  const folder = mkdtempSync(join(tmpdir(), "conformance-"));
  try {
    run(folder, process.argv.length > 2 ? process.argv.slice(2) : ["grpc-js", "dialGrpc", "dialGrpcHttp2"]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
} else {
  process.stdout.write("SKIPPED: there is no `go` here, so Connect's conformance suite does not run\n");
}
