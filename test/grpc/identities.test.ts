import assert from "node:assert/strict";
import { createSecureServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";
import { TLSSocket } from "node:tls";
import { inspect } from "node:util";
import { credentials } from "@grpc/grpc-js";
import type { Rpc } from "../../src/contract.ts";
import { dialGrpcHttp2, type GrpcPeer, grpcPeers } from "../../src/grpc/index.ts";
import { type Http2Conn, type Http2Peer, http2Peers } from "../../src/http2/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { ca, type Identity, localhost, other } from "../support/certs.ts";
import { nothingUnheard, rejection } from "../support/outcome.ts";
import { answer } from "../support/raw-grpc.ts";

nothingUnheard();

const whoAmI: Rpc<string, string> = {
  path: "/test.Who/AmI",
  requestSerialize: (message) => Buffer.from(message),
  responseDeserialize: (bytes) => bytes.toString(),
};

/** The names in the certificates. */
const identities: readonly (Identity & { name: string })[] = [
  { ...localhost, name: "localhost" },
  { ...other, name: "other" },
];

describe("two identities never share a conn, over TLS with client certificates", () => {
  const server = createSecureServer({ ...localhost, ca, requestCert: true, rejectUnauthorized: true });
  let port = 0;
  before(async () => {
    server.on("stream", (stream) => {
      const { socket } = stream.session ?? assert.fail();
      const name = socket instanceof TLSSocket ? String(socket.getPeerCertificate().subject.CN) : "nobody";
      stream.on("error", () => {});
      answer(stream, [name]);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    port = (server.address() as AddressInfo).port; // it listens on TCP
  });
  after(() => server.close());

  for (const [name, pool] of [
    ["dialGrpc", new Pool<GrpcPeer>({ ...grpcPeers(), selection: "least-loaded" })],
    ["dialGrpcHttp2", new Pool<GrpcPeer>({ ...grpcPeers({ dial: dialGrpcHttp2 }), selection: "least-loaded" })],
  ] as const) {
    test(`grpcPeers over ${name}: peers that differ in their credentials alone, or in options that look like them`, async () => {
      const address = `localhost:${port}`;
      const peers = identities.flatMap(({ key, cert, name }) => {
        const who = credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(cert));
        // What the pool makes of a peer, put into a peer: as text of options, and of a user agent.
        const options: GrpcPeer["options"][] = [
          undefined,
          {},
          { "grpc.primary_user_agent": '"#1 {}' },
          { "grpc.primary_user_agent": "#2 {}" },
        ];
        return options.map((options) => ({ peer: { address, credentials: who, options }, name }));
      });
      for (let round = 0; round < 3; round++) {
        const calls = peers.map(async ({ peer, name }) => {
          assert.equal(await pool.get(peer).invoke(whoAmI, "x", { timeoutMs: 10_000 }), name);
        });
        await Promise.all([...calls, ...calls.reverse()]);
      }
      // No options, and none set, are the same: three conns for each identity.
      assert.equal(pool.stats().open, 6);
      await pool.close();
    });
  }

  test("http2Peers: peers that differ in their certificate alone", async () => {
    await using pool = new Pool<Http2Peer, Http2Conn>(http2Peers({ tls: { ca } }));
    const ask = (conn: Http2Conn) =>
      new Promise<string>((resolve, reject) => {
        const stream = conn.request({ ":method": "POST", ":path": whoAmI.path });
        const bytes: Buffer[] = [];
        stream.on("data", (chunk: Buffer) => bytes.push(chunk)).on("error", reject);
        stream.on("end", () => resolve(Buffer.concat(bytes).subarray(5).toString())).end();
      });
    const origin = `https://localhost:${port}`;
    for (let round = 0; round < 3; round++) {
      await Promise.all(
        identities.map(async ({ key, cert, name }) => {
          // Made for each call: what it contains decides, not which object it is.
          assert.equal(await pool.use({ origin, tls: { key, cert } }, ask), name);
        }),
      );
    }
    assert.equal(pool.stats().open, 2);
  });

  test("keys that try to look alike are not", () => {
    const { hashKey } = grpcPeers();
    const { key, cert } = localhost;
    const secure = [1, 2].map(() => credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(cert)));
    const [one = assert.fail(), two = assert.fail()] = secure;
    const known = hashKey({ address: "a:1", credentials: one });
    const [, id = ""] = / (#\d+) /.exec(known) ?? [];
    const peers: GrpcPeer[] = [
      { address: "a:1", credentials: one },
      { address: "a:1", credentials: two },
      { address: "a:1", credentials: credentials.createInsecure() },
      { address: known, credentials: two },
      { address: `a:1" ${id} {}`, credentials: two },
      { address: `a:1 ${id}`, credentials: two },
      { address: "a:1", credentials: two, options: { [`" ${id}`]: 1 } },
      { address: "a:1", credentials: two, options: { a: 1, b: 2 } },
      { address: "a:1", credentials: two, options: { 'a":1,"b': 2 } },
      { address: "a:1", credentials: two, options: { a: '1,"b":2' } },
      { address: "a:1", credentials: two, options: { a: "1" } },
      { address: "a:1", credentials: two, options: { a: 1 } },
      { address: "a:1 ", credentials: two },
      { address: "A:1", credentials: two },
    ];
    assert.equal(new Set(peers.map((peer) => hashKey(peer))).size, peers.length);
  });

  test("no secret stands in errors, stats and what events say beside the caller's own key", async () => {
    const secrets = ["hunter2", "s3cret", "BEGIN", ...localhost.key.split("\n").filter((line) => line.length > 20)];
    const pool = new Pool<Http2Peer & { token: string }, Http2Conn>({ ...http2Peers(), waitTimeoutMs: 300 });
    const said: unknown[] = [];
    for (const name of ["dialed", "failed", "refused", "timedOut", "closed"] as const) {
      pool.on(name, (event) => {
        said.push({ ...event, key: undefined, ...("conn" in event && { conn: undefined }) });
      });
    }
    const peer = (origin: string, tls: Http2Peer["tls"]) => ({ origin, tls, token: "s3cret" });
    const { key, cert } = localhost;
    const nobody = peer("https://127.0.0.1:1", { ca, key, cert, passphrase: "hunter2" });
    const untrusted = peer(`https://localhost:${port}`, { key, cert, passphrase: "hunter2" });
    const unnamed = peer(`https://localhost:${port}`, { ca, passphrase: "hunter2" });
    const wrong = peer(`https://localhost:${port}`, { ca, key: "hunter2", cert });
    for (const each of [nobody, untrusted, wrong]) said.push(await rejection(pool.acquire(each)));
    said.push(await rejection(pool.acquire(unnamed, { timeoutMs: 0 })));
    pool.configure({ maxWaiters: 1, maxKeyConns: 1, maxStreams: 1 });
    const trusted = peer(`https://localhost:${port}`, { ca, key, cert });
    const lease = await pool.acquire(trusted);
    said.push(pool.stats(), pool.stats(trusted));
    const waiting = rejection(pool.acquire(trusted, { timeoutMs: 20 }));
    said.push(await rejection(pool.acquire(trusted)), await waiting);
    lease.release();
    await pool.close();
    said.push(await rejection(pool.acquire(trusted)), pool.stats(), pool);
    const text = inspect(said, { depth: 12, showHidden: true });
    for (const secret of secrets) assert.equal(text.includes(secret), false, `${secret} stands in ${text}`);
    assert.ok(said.length > 12, text);
  });
});
