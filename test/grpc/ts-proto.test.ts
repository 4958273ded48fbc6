import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponseSchema,
  type FileDescriptorProto,
} from "@bufbuild/protobuf/wkt";
import { ChatService } from "../../examples/gen/chat.ts";
import { Chat } from "../../examples/gen/chat_pb.ts";
import { DrpcServer } from "../../src/drpc/index.ts";
import { echoDescriptor, ProtobufEcho } from "../support/echo-descriptor.ts";
import { startEcho } from "../support/echo-service.ts";

/** Where compiled tests run: what lies under it finds this package, by its name, and the others. */
const build = fileURLToPath(new URL("../../", import.meta.url));
const adapter = join(build, "../examples/adapters/ts-proto.ts");
const { resolve } = createRequire(import.meta.url);

const compilerOptions = {
  target: "es2022",
  lib: ["es2023", "esnext.disposable"],
  module: "nodenext",
  types: ["node"],
  strict: true,
  skipLibCheck: true,
};

/** A user's program, on what ts-proto generated, with the one line that the pool takes. */
const program = `
import { credentials } from "@grpc/grpc-js";
import { Pool } from "rpc-conn-pool";
import { dialGrpc, pooledChannel } from "rpc-conn-pool/grpc";
import { type Answer, EchoClient } from "./echo.js";

async function textsOf(answers: AsyncIterable<Answer>): Promise<string> {
  let all = "";
  for await (const { text } of answers) all += text;
  return all;
}

export async function run(address: string): Promise<string[]> {
  await using pool = new Pool({ dial: dialGrpc(credentials.createInsecure()) });
  const client = new EchoClient(address, credentials.createInsecure(), {
    channelOverride: pooledChannel(pool, address),
  });
  const unary = await new Promise<string>((resolve, reject) =>
    client.unary({ text: "one", count: 0 }, (error, answer) => (error ? reject(error) : resolve(answer.text))));
  const collect = await new Promise<string>((resolve, reject) => {
    const stream = client.collect((error, answer) => (error ? reject(error) : resolve(answer.text)));
    for (const text of ["a", "b", "c"]) stream.write({ text, count: 0 });
    stream.end();
  });
  const repeat = await textsOf(client.repeat({ text: "n", count: 3 }));
  const stream = client.chat();
  for (const text of ["a", "b", "c"]) stream.write({ text, count: 0 });
  stream.end();
  const chat = await textsOf(stream);
  client.close();
  return [unary, collect, repeat, chat, String(pool.stats().dials)];
}
`;

/** The same over DRPC, with what the flags of examples/drpc-clients.ts generate, and the adapter of the examples. */
const drpcProgram = `
import { Pool } from "rpc-conn-pool";
import { dialDrpc } from "rpc-conn-pool/drpc";
import { ChatClientImpl, ChatService, type Line } from "./chat.js";
import { rpcOver } from "./adapter.js";

let returned = 0;
async function* lines(...texts: readonly (string | Error)[]): AsyncGenerator<Line> {
  try {
    for (const text of texts) {
      if (text instanceof Error) throw text;
      yield { text };
    }
  } finally {
    returned++;
  }
}
async function textsOf(lines: AsyncIterable<Line>): Promise<string> {
  const texts: string[] = [];
  for await (const { text } of lines) texts.push(text);
  return texts.join();
}

export async function run(address: string): Promise<string[]> {
  await using pool = new Pool<string>({ dial: dialDrpc(), maxKeyConns: 1 });
  const conn = pool.get(address);
  const client = new ChatClientImpl(rpcOver(conn, { timeoutMs: 10_000 }));
  const said = [
    (await conn.invoke(ChatService.say, { text: "a" })).text,
    (await client.say({ text: "b" })).text,
    (await client.collect(lines("c", "d"))).text,
    await textsOf(client.repeat({ text: "e" })),
    await textsOf(client.talk(lines("f", "g"))),
    // The server has enough of it, and does not wait for the rest.
    await textsOf(client.talk(lines("enough", "h"))),
    await client.collect(lines("i", new Error("the source"))).then(String, String),
    await textsOf(client.talk(lines("fail", "j"))).catch(String),
  ];
  for await (const { text } of client.talk(lines(...Array.from({ length: 1_000 }, () => "k")))) {
    said.push(text);
    break;
  }
  said.push((await client.say({ text: "l" })).text, String(returned));
  return said;
}
`;

/** What ts-proto makes of a file: it speaks to a protobuf compiler, which this is for the moment. */
function generate(descriptor: FileDescriptorProto, parameter: string): string {
  const request = create(CodeGeneratorRequestSchema, {
    fileToGenerate: [descriptor.name],
    protoFile: [descriptor],
    parameter,
  });
  const plugin = resolve("ts-proto/protoc-gen-ts_proto");
  const { stdout, stderr } = spawnSync(process.execPath, [plugin], {
    input: toBinary(CodeGeneratorRequestSchema, request),
  });
  assert.equal(String(stderr), "");
  const { error, file } = fromBinary(CodeGeneratorResponseSchema, stdout);
  assert.equal(error, "");
  const content = file.find(({ name }) => name === descriptor.name.replace(".proto", ".ts"))?.content;
  assert(content !== undefined, "ts-proto generated nothing");
  return content;
}

/** Runs a program beside what has been generated for it. */
async function runWith(generated: Readonly<Record<string, string>>, text: string, address: string): Promise<string[]> {
  const folder = mkdtempSync(join(build, "ts-proto-"));
  try {
    for (const [name, content] of Object.entries(generated)) writeFileSync(join(folder, name), content);
    writeFileSync(join(folder, "main.ts"), text);
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["main.ts"] }));
    const compiled = spawnSync(process.execPath, [join(build, "../node_modules/typescript/bin/tsc"), "-p", folder]);
    assert.equal(String(compiled.stdout), "");
    const { run } = (await import(pathToFileURL(join(folder, "main.js")).href)) as {
      run: (address: string) => Promise<string[]>;
    };
    return await run(address);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test("what ts-proto generates runs through the pool, with one line changed", { timeout: 60_000 }, async () => {
  const text = generate(echoDescriptor, "outputServices=grpc-js,esModuleInterop=true,importSuffix=.js");
  await using echo = await startEcho(undefined, {}, ProtobufEcho.service);
  const said = await runWith({ "echo.ts": text }, program, echo.address);
  assert.deepEqual(said, ["one", "a b c", "n0n1n2", "abc", "1"]);
});

test("what it generates runs over DRPC, its definitions and its own clients, streams too", {
  timeout: 60_000,
}, async () => {
  const flags =
    "outputServices=grpc-js,outputServices=default,useAsyncIterable=true,esModuleInterop=true,importSuffix=.js";
  await using server = new DrpcServer().add(ChatService, {
    say: ({ text }) => ({ text: `${text}!` }),
    async collect(lines) {
      const texts: string[] = [];
      for await (const { text } of lines) texts.push(text);
      return { text: texts.join(" ") };
    },
    async *repeat(line) {
      for (let i = 0; i < 3; i++) yield line;
    },
    async *talk(lines) {
      for await (const { text } of lines) {
        if (text === "fail") throw new Error("the server");
        yield { text: `${text}?` };
        if (text === "enough") return;
      }
    },
  });
  const address = await server.listen({ host: "127.0.0.1" });
  const files = { "chat.ts": generate(Chat.file.proto, flags), "adapter.ts": readFileSync(adapter, "utf8") };
  assert.deepEqual(await runWith(files, drpcProgram, address), [
    "a!",
    "b!",
    "c d",
    "e,e,e",
    "f?,g?",
    "enough?",
    "Error: the source",
    "DrpcError: the server",
    "k?",
    "l!",
    "6",
  ]);
});
