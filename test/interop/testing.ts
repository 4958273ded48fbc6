import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  type Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { localhost } from "../support/certs.ts";

/** The requests of gRPC's interoperability tests, and their answers, in one. */
export interface Message {
  readonly payload?: { readonly body: Buffer };
  readonly response_size?: number;
  readonly response_status?: { readonly code: number; readonly message: string };
  readonly response_parameters?: readonly { readonly size?: number; readonly interval_us?: number }[];
  readonly aggregated_payload_size?: number;
}

export type Method = MethodDefinition<Message, Message>;

/** Compiled tests run in .build/test/interop; the proto stays where it is. */
const protos = fileURLToPath(new URL("../../../test/interop/testing.proto", import.meta.url));
const loaded = loadSync(protos, { keepCase: true });

/** A service's methods, as the proto has them. */
export function methodsOf(service: string): Readonly<Record<string, Method>> {
  return Object(loaded)[`grpc.testing.${service}`];
}

export const initialKey = "x-grpc-test-echo-initial";
export const trailingKey = "x-grpc-test-echo-trailing-bin";

export interface TestingServer extends AsyncDisposable {
  readonly plain: string;
  readonly tls: string;
}

/** grpc-go's own interoperability server, in the version that the other peers in Go have. */
export async function startGo(): Promise<TestingServer> {
  const folder = mkdtempSync(join(tmpdir(), "grpc-interop-"));
  const files = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem") };
  writeFileSync(files.cert, localhost.cert);
  writeFileSync(files.key, localhost.key);
  execFileSync("go", ["install", "google.golang.org/grpc/interop/server@v1.74.2"], {
    env: { ...process.env, GOBIN: folder },
    stdio: "inherit",
  });
  const servers: ChildProcess[] = [];
  const start = async (...args: string[]): Promise<string> => {
    const env = { ...process.env, GRPC_GO_LOG_SEVERITY_LEVEL: "info" };
    const server = spawn(join(folder, "server"), ["-port", "0", ...args], { env, stdio: ["ignore", "ignore", "pipe"] });
    servers.push(server);
    process.once("exit", () => server.kill());
    const lines = createInterface(server.stderr);
    const port = await new Promise<string>((resolve, reject) => {
      lines.on("line", (line) => {
        const [, port] = /interop server listening on .*:(\d+)/.exec(line) ?? [];
        if (port !== undefined) resolve(port);
      });
      server.once("exit", (code) => reject(new Error(`the Go server ended with ${code}`)));
    });
    return `localhost:${port}`;
  };
  return {
    plain: await start(),
    tls: await start("-use_tls", "-tls_cert_file", files.cert, "-tls_key_file", files.key),
    async [Symbol.asyncDispose]() {
      for (const server of servers) server.kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A server of grpc-js that does the same, and compresses what it sends. */
export async function startGrpcJs(): Promise<TestingServer> {
  const server = new Server({ "grpc.default_compression_algorithm": 2 });
  server.addService(methodsOf("TestService"), {
    EmptyCall: (_: unknown, done: sendUnaryData<Message>) => done(null, {}),
    UnaryCall: (call: ServerUnaryCall<Message, Message>, done: sendUnaryData<Message>) => {
      const trailer = echoMetadata(call);
      const { response_status, response_size = 0 } = call.request;
      if (response_status?.code) done({ ...response_status, details: response_status.message, metadata: trailer });
      else done(null, { payload: { body: Buffer.alloc(response_size) } }, trailer);
    },
    StreamingOutputCall: (call: ServerWritableStream<Message, Message>) => {
      void respond(call, call.request).then(() => call.end());
    },
    StreamingInputCall: (call: ServerReadableStream<Message, Message>, done: sendUnaryData<Message>) => {
      let sum = 0;
      call.on("data", ({ payload }: Message) => {
        sum += payload?.body.length ?? 0;
      });
      call.on("end", () => done(null, { aggregated_payload_size: sum }));
    },
    FullDuplexCall: (call: ServerDuplexStream<Message, Message>) => {
      const trailer = echoMetadata(call);
      let before = Promise.resolve();
      call.on("data", (request: Message) => {
        const { response_status: status } = request;
        if (status?.code) call.emit("error", { code: status.code, details: status.message });
        else before = before.then(() => respond(call, request));
      });
      call.on("end", () => void before.then(() => call.end(trailer)));
    },
  });
  const bind = async (credentials: ServerCredentials): Promise<string> => {
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync("localhost:0", credentials, (error, port) => (error ? reject(error) : resolve(port))),
    );
    return `localhost:${port}`;
  };
  const pair = { cert_chain: Buffer.from(localhost.cert), private_key: Buffer.from(localhost.key) };
  return {
    plain: await bind(ServerCredentials.createInsecure()),
    tls: await bind(ServerCredentials.createSsl(null, [pair])),
    async [Symbol.asyncDispose]() {
      server.forceShutdown();
    },
  };
}

/** Sends back the header's key, and returns the trailer's. */
function echoMetadata(call: { readonly metadata: Metadata; sendMetadata(metadata: Metadata): void }): Metadata {
  const header = call.metadata.clone();
  const trailer = call.metadata.clone();
  for (const key of Object.keys(call.metadata.getMap())) {
    if (key !== initialKey) header.remove(key);
    if (key !== trailingKey) trailer.remove(key);
  }
  call.sendMetadata(header);
  return trailer;
}

async function respond(call: { write(message: Message): boolean }, { response_parameters = [] }: Message) {
  for (const { size = 0, interval_us = 0 } of response_parameters) {
    if (interval_us > 0) await sleep(interval_us / 1_000);
    call.write({ payload: { body: Buffer.alloc(size) } });
  }
}
