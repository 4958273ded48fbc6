import assert from "node:assert/strict";
import { test } from "node:test";
import { hostAddresses, type Resolve, srvAddresses } from "../../src/resolve/index.ts";

const ask = async (resolve: Resolve<string>, key: string): Promise<readonly string[]> =>
  resolve(key, { signal: new AbortController().signal, update: () => {} });

const both = [
  { address: "10.0.0.1", family: 4 },
  { address: "fd00::1", family: 6 },
  { address: "10.0.0.2", family: 4 },
];

test("a name stands for all its addresses of the first one's family, or of the family asked for", async () => {
  const asked: string[] = [];
  const lookup = async (host: string) => {
    asked.push(host);
    return both;
  };
  assert.deepEqual(await ask(hostAddresses({ lookup }), "svc:80"), ["10.0.0.1:80", "10.0.0.2:80"]);
  assert.deepEqual(await ask(hostAddresses({ lookup, family: 6 }), "svc:80"), ["[fd00::1]:80"]);
  assert.deepEqual(await ask(hostAddresses({ lookup: async () => [] }), "svc:80"), []);
  assert.deepEqual(asked, ["svc", "svc"]);
});

test("IP addresses and paths stand for themselves; nothing else is a key", async () => {
  const lookup = () => assert.fail("nothing is looked up");
  for (const key of ["10.0.0.1:80", "[::1]:80", "unix:/run/x.sock"])
    assert.deepEqual(await ask(hostAddresses({ lookup }), key), [key]);
  await assert.rejects(ask(hostAddresses({ lookup }), "no port"), { code: "ERR_POOL_DIAL", final: true });
});

test("without a function of its own it asks the machine", async () => {
  const found = await ask(hostAddresses(), "localhost:80");
  assert.ok(found.includes("127.0.0.1:80") || found.includes("[::1]:80"), found.join());
});

test("SRV records stand for the targets of the best priority", async () => {
  const resolveSrv = async () => [
    { name: "a.example", port: 1, priority: 10 },
    { name: "b.example", port: 2, priority: 5 },
    { name: "c.example", port: 3, priority: 5 },
  ];
  assert.deepEqual(await ask(srvAddresses({ resolveSrv }), "_grpc._tcp.svc"), ["b.example:2", "c.example:3"]);
  assert.deepEqual(await ask(srvAddresses({ resolveSrv: async () => [] }), "_grpc._tcp.svc"), []);
});

test("wrong options are refused at once", () => {
  for (const options of [{ family: 5 }, { lookup: 1 }, { famly: 4 }, null])
    assert.throws(() => hostAddresses(options as never), { code: "ERR_POOL_ARGUMENT" });
  for (const options of [{ resolveSrv: 1 }, { resolve: 1 }])
    assert.throws(() => srvAddresses(options as never), { code: "ERR_POOL_ARGUMENT" });
});
