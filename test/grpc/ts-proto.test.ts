import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { CodeGeneratorRequestSchema, CodeGeneratorResponseSchema } from "@bufbuild/protobuf/wkt";
import { echoDescriptor, ProtobufEcho } from "../support/echo-descriptor.ts";
import { startEcho } from "../support/echo-service.ts";

/** Where compiled tests run: what lies under it finds this package, by its name, and the others. */
const build = fileURLToPath(new URL("../../", import.meta.url));
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

/** What ts-proto makes of the echo service: it speaks to a protobuf compiler, which this is for the moment. */
function generate(parameter: string): string {
  const request = create(CodeGeneratorRequestSchema, {
    fileToGenerate: [echoDescriptor.name],
    protoFile: [echoDescriptor],
    parameter,
  });
  const plugin = resolve("ts-proto/protoc-gen-ts_proto");
  const { stdout, stderr } = spawnSync(process.execPath, [plugin], {
    input: toBinary(CodeGeneratorRequestSchema, request),
  });
  assert.equal(String(stderr), "");
  const { error, file } = fromBinary(CodeGeneratorResponseSchema, stdout);
  assert.equal(error, "");
  const content = file.find(({ name }) => name === "echo.ts")?.content;
  assert(content !== undefined, "ts-proto generated nothing");
  return content;
}

test("what ts-proto generates runs through the pool, with one line changed", { timeout: 60_000 }, async () => {
  const folder = mkdtempSync(join(build, "ts-proto-"));
  try {
    writeFileSync(join(folder, "echo.ts"), generate("outputServices=grpc-js,esModuleInterop=true,importSuffix=.js"));
    writeFileSync(join(folder, "main.ts"), program);
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["main.ts"] }));
    const compiled = spawnSync(process.execPath, [join(build, "../node_modules/typescript/bin/tsc"), "-p", folder]);
    assert.equal(String(compiled.stdout), "");
    const { run } = await import(pathToFileURL(join(folder, "main.js")).href);
    await using echo = await startEcho(undefined, {}, ProtobufEcho.service);
    assert.deepEqual(await run(echo.address), ["one", "a b c", "n0n1n2", "abc", "1"]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
