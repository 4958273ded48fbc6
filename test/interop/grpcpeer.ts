import { type ChildProcessWithoutNullStreams, execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { MethodDefinition } from "@grpc/grpc-js";

/** Compiled tests run in .build/test/interop; the Go sources stay where they are. */
const sources = fileURLToPath(new URL("../../../test/interop/grpc", import.meta.url));

/** Why the Go tests cannot run here; false when they can. */
export const noGo: string | false =
  spawnSync("go", ["version"]).status === 0
    ? false
    : "SKIPPED: there is no `go` here, so gRPC is not tested against Go";

export interface GoAsk {
  readonly id: string;
  readonly delayMs?: number;
}

/** What a Go server has seen since it started. */
export interface GoReport {
  /** Different ids. */
  readonly ran: number;
  /** Ids that came more than once. */
  readonly twice: readonly string[];
  readonly connections: number;
  /** The most streams that ran at once on one connection. */
  readonly peak: number;
  /** The most streams that ran at once. */
  readonly peakOfAll: number;
}

const asIs = (bytes: Buffer): Buffer => bytes;

/** What the Go server serves; its messages are JSON, but for those of `echo`. */
export const goService = {
  echo: {
    path: "/test.Interop/Echo",
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  },
  /** As many messages of a size as the request says, in two little-endian numbers of four bytes. */
  flood: {
    path: "/test.Interop/Flood",
    requestStream: false,
    responseStream: true,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  },
  unary: method<GoAsk, GoAsk>("Unary", false),
  chat: method<GoAsk, GoAsk>("Chat", true),
  report: method<GoAsk, GoReport>("Report", false),
};

function method<I, O>(name: string, stream: boolean): MethodDefinition<I, O> {
  const serialize = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
  const deserialize = (bytes: Buffer) => JSON.parse(bytes.toString());
  return {
    path: `/test.Interop/${name}`,
    requestStream: stream,
    responseStream: stream,
    requestSerialize: serialize,
    requestDeserialize: deserialize,
    responseSerialize: serialize,
    responseDeserialize: deserialize,
  };
}

/** The servers of the Go peer, by what each is for. */
export interface GoAddresses {
  /** Retires nothing, limits nothing, and counts no calls. */
  plain: string;
  /** Retires connections that are a second old, and lets what runs on them end. */
  aging: string;
  /** Retires connections that are a second old, and cuts what still runs 50 ms later. */
  cutting: string;
  /** Allows ten streams on a connection. */
  narrow: string;
}

/** The Go gRPC server, built into a folder of its own. */
export class GoGrpcPeer implements Disposable {
  readonly #folder: string = mkdtempSync(join(tmpdir(), "grpcpeer-"));
  readonly #binary: string = join(this.#folder, "grpcpeer");
  #server: ChildProcessWithoutNullStreams | undefined;

  constructor() {
    execFileSync("go", ["build", "-o", this.#binary, "."], { cwd: sources, stdio: "inherit" });
  }

  /** Starts the servers, on at most so many `processors`; they end with this process, whatever becomes of that. */
  async serve({ processors }: { processors?: number } = {}): Promise<GoAddresses> {
    const env = processors === undefined ? process.env : { ...process.env, GOMAXPROCS: String(processors) };
    this.#server = spawn(this.#binary, { env });
    this.#server.stderr.pipe(process.stderr);
    const addresses: GoAddresses = { plain: "", aging: "", cutting: "", narrow: "" };
    for await (const line of createInterface(this.#server.stdout)) {
      const [name, address] = line.split(" ");
      if (address !== undefined && (name === "plain" || name === "aging" || name === "cutting" || name === "narrow"))
        addresses[name] = address;
      if (name === "narrow") return addresses;
    }
    throw new Error("the Go server did not start");
  }

  [Symbol.dispose](): void {
    this.#server?.stdin.end();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
