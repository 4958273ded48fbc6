/** Programs that use the package as its users do. Each prints `passed` when all is well. */

/** A DRPC server and a pooled call to it, in plain JavaScript; it needs `Pool` and the names of /drpc. */
const call = `
const echo = {
  path: "/test.Echo/Echo",
  requestStream: false,
  responseStream: false,
  requestSerialize: (text) => Buffer.from(text),
  requestDeserialize: (bytes) => bytes.toString(),
  responseSerialize: (text) => Buffer.from(text),
  responseDeserialize: (bytes) => bytes.toString(),
};
async function main() {
  const server = new DrpcServer().add({ echo }, { echo: async (text) => text + "!" });
  const address = await server.listen({ host: "127.0.0.1" });
  const pool = new Pool({ dial: dialDrpc() });
  for (const text of ["one", "two"]) {
    const answer = await pool.get(address).invoke(echo, text);
    if (answer !== text + "!") throw new Error("answered " + answer);
  }
  if (pool.stats().dials !== 1) throw new Error("dialed " + pool.stats().dials);
  await Promise.all([pool.close(), server.close()]);
}
`;

const run = `main().then(() => console.log("passed"));`;

/** Imports, for a module. */
const imports = `import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
`;

const requires = `const { Pool } = require("rpc-conn-pool");
const { DrpcServer, dialDrpc } = require("rpc-conn-pool/drpc");
`;

const everyEntry = ["", "/connect", "/drpc", "/grpc", "/http2", "/otel", "/resolve", "/testing"].map(
  (entry) => `rpc-conn-pool${entry}`,
);

/** An ES module that calls, for any runtime. */
export const esModule: string = `${imports}${call}${run}`;

/** The same in CommonJS. */
export const commonJs: string = `${requires}${call}${run}`;

/** The same in TypeScript. */
export const typeScript: string = `${imports}${call}
const text: string = "passed";
main().then((): void => console.log(text));`;

/** CommonJS: each entry point, required and imported, is one and the same module. */
export const oneCopy: string = `
const entries = ${JSON.stringify(everyEntry)};
async function main() {
  for (const entry of entries) {
    const required = require(entry);
    const imported = await import(entry);
    const names = Object.keys(required).filter((name) => name !== "__esModule" && name !== "module.exports");
    if (names.length === 0) throw new Error("nothing in " + entry);
    for (const name of names) if (required[name] !== imported[name]) throw new Error("two copies of " + entry);
  }
}
${run}`;

/** TypeScript: every entry point, with types that go from one to another. */
export const types: string = `import { credentials } from "@grpc/grpc-js";
import { type Conn, type Dial, isPoolError, Pool, type PoolOptions } from "rpc-conn-pool";
import { dialHttp2, pooledSession } from "rpc-conn-pool/connect";
import { type DrpcConn, dialDrpc } from "rpc-conn-pool/drpc";
import { dialGrpc, type GrpcConn, pooledChannel } from "rpc-conn-pool/grpc";
import { type Instrumentation, instrument } from "rpc-conn-pool/otel";
import { dialService } from "rpc-conn-pool/resolve";
import { FakeClock, type ScriptedConn, scriptedDial, simulate } from "rpc-conn-pool/testing";

export const conn: Conn = new Pool().get("localhost:1", dialDrpc());
const options: PoolOptions<string, GrpcConn> = { dial: dialGrpc(credentials.createInsecure()) };
export const channel = pooledChannel(new Pool(options), "localhost:1");
export const session = pooledSession(new Pool({ dial: dialHttp2() }), "http://localhost:1");
export const spread: Dial<string, DrpcConn> = dialService({ resolve: ["10.0.0.1:1"], dial: dialDrpc() });
export const scripted: Pool<string, ScriptedConn> = new Pool({ dial: scriptedDial(), clock: new FakeClock() });
export const simulated: Promise<void> = simulate({ seed: 1 }, async ({ clock, network }) => {
  await new Pool({ clock, dial: network.dial }).close();
});
export const watching: Instrumentation = instrument(scripted, { keyAttributes: (key) => ({ "server.address": key }) });
export const code = (error: unknown): string | undefined => (isPoolError(error) ? error.code : undefined);
// @ts-expect-error The types are really there.
export const wrong: number = new Pool();
`;

/** The body of a test that lets a minute pass with the runner's fake timers, for Jest and Vitest. */
const fakeTimers = (runner: string, options = ""): string => `
test("a pool without a clock of its own follows the runner's timers", async () => {
  ${runner}.useFakeTimers(${options});
  const pool = new Pool({ dial: scriptedDial(), expirationMs: 60000 });
  (await pool.acquire("peer")).release();
  await ${runner}.advanceTimersByTimeAsync(59999);
  expect(pool.stats().idle).toBe(1);
  await ${runner}.advanceTimersByTimeAsync(15001);
  expect(pool.stats().closed.expired).toBe(1);
  const late = pool.acquire("peer", { timeoutMs: 5000, dial: scriptedDial({}, { manual: true }) });
  late.catch(() => {});
  await ${runner}.runAllTimersAsync();
  await expect(late).rejects.toMatchObject({ code: "ERR_POOL_WAIT_TIMEOUT" });
  ${runner}.useRealTimers();
  await pool.close();
});
test("and an RPC runs", () => main());
`;

export const jestTest: string = `${requires}
const { scriptedDial } = require("rpc-conn-pool/testing");
require("rpc-conn-pool/connect");
require("rpc-conn-pool/grpc");
require("rpc-conn-pool/http2");
require("rpc-conn-pool/otel");
require("rpc-conn-pool/resolve");
${call}${fakeTimers("jest", '{ doNotFake: ["nextTick", "queueMicrotask", "setImmediate"] }')}`;

export const vitestTest: string = `import { expect, test, vi } from "vitest";
${imports}import { scriptedDial } from "rpc-conn-pool/testing";
${call}${fakeTimers("vi")}`;
