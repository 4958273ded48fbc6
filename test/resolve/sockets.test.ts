import assert from "node:assert/strict";
import { test } from "node:test";
import { promisify } from "node:util";
import * as grpc from "@grpc/grpc-js";
import { Pool } from "rpc-conn-pool";
import { type DrpcConn, DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
import { dialGrpc, type GrpcConn, pooledChannel } from "rpc-conn-pool/grpc";
import { dialService } from "rpc-conn-pool/resolve";

const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
/** Answers with the name of the server. */
const who = {
  path: "/test.Who/Who",
  requestStream: false,
  responseStream: false,
  requestSerialize: encode,
  requestDeserialize: decode,
  responseSerialize: encode,
  responseDeserialize: decode,
} as const;

/** Asks `count` times at once, and says how often each server answered. */
async function countAnswers(count: number, ask: () => Promise<string>): Promise<Record<string, number>> {
  const names = await Promise.all(Array.from({ length: count }, ask));
  const counts: Record<string, number> = {};
  for (const name of names.toSorted((a, b) => a.localeCompare(b))) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

test("DRPC over sockets: calls spread over the servers, and follow when those change", {
  timeout: 60_000,
}, async () => {
  const servers = ["a", "b", "c", "d"].map((name) =>
    new DrpcServer().add(
      { who },
      {
        who: async () => {
          await new Promise((resolve) => setTimeout(resolve, 20)); // so that the calls overlap
          return name;
        },
      },
    ),
  );
  const addresses = await Promise.all(servers.map((server) => server.listen({ host: "127.0.0.1" })));
  let known = addresses.slice(0, 2);
  const dial = dialService<string, DrpcConn>({ resolve: () => known, dial: dialDrpc() });
  const pool = new Pool<string>({ dial, selection: "least-loaded" });
  dial.attach(pool);
  try {
    const handle = pool.get("svc");
    assert.deepEqual(await countAnswers(8, () => handle.invoke(who, "?")), { a: 4, b: 4 });
    known = addresses.slice(1);
    await dial.refresh("svc");
    while (dial.addresses("svc").some(({ conns }) => conns < 2)) await new Promise((resolve) => setTimeout(resolve, 5)); // its dials take some time
    const after = await countAnswers(8, () => handle.invoke(who, "?"));
    assert.deepEqual(Object.keys(after), ["b", "c", "d"]);
    assert.ok(
      Object.values(after).every((count) => count === 2 || count === 3),
      JSON.stringify(after),
    );
    assert.equal(pool.stats().closed.died, 0);
  } finally {
    await pool.close();
    await Promise.all(servers.map((server) => server.close()));
  }
});

test("gRPC over sockets: a stub on the pool's channel reaches all servers", { timeout: 60_000 }, async () => {
  const servers = await Promise.all(
    ["a", "b", "c"].map(async (name) => {
      const server = new grpc.Server();
      server.addService({ who }, { who: (_: unknown, reply: grpc.sendUnaryData<string>) => reply(null, name) });
      const port = await promisify(server.bindAsync.bind(server))(
        "127.0.0.1:0",
        grpc.ServerCredentials.createInsecure(),
      );
      return { server, address: `127.0.0.1:${port}` };
    }),
  );
  const dial = dialService<string, GrpcConn>({
    resolve: servers.map(({ address }) => address),
    dial: dialGrpc(grpc.credentials.createInsecure()),
  });
  const pool = new Pool({ dial, selection: "least-loaded" });
  dial.attach(pool);
  try {
    await pool.warm("svc", 3);
    const channelOverride = pooledChannel(pool, "svc");
    const client = new grpc.Client("svc", grpc.credentials.createInsecure(), { channelOverride });
    const ask = () =>
      new Promise<string>((resolve, reject) => {
        client.makeUnaryRequest(who.path, encode, decode, "?", (error, name) =>
          error ? reject(error) : resolve(name ?? ""),
        );
      });
    assert.deepEqual(await countAnswers(30, ask), { a: 10, b: 10, c: 10 });
    client.close();
  } finally {
    await pool.close();
    for (const { server } of servers) server.forceShutdown();
  }
});
