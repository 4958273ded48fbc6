import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, createServer, type Server, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createServer as createTlsServer } from "node:tls";
import { dialSocket } from "../../src/net/dial.ts";
import { type SocketConn, socketConn } from "../../src/net/socket.ts";
import type { PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { ca, localhost, other } from "../support/certs.ts";
import { nothingUnheard, rejection } from "../support/outcome.ts";

nothingUnheard();

/** A server that echoes, and the sockets that it has accepted. */
async function listen(t: TestContext, server: Server = createServer(), at: number | string = 0, host = "127.0.0.1") {
  const accepted: Socket[] = [];
  server.on("connection", (socket) => void accepted.push(socket.on("error", () => {})));
  const echo = (socket: Socket) => void socket.on("error", () => {}).on("data", (data) => void socket.write(data));
  server.on("addContext" in server ? "secureConnection" : "connection", echo);
  await new Promise<void>((resolve) =>
    typeof at === "string" ? server.listen(at, resolve) : server.listen(at, host, resolve),
  );
  t.after(() => {
    for (const socket of accepted) socket.destroy();
    server.close();
  });
  const address = server.address() as AddressInfo | string;
  return { accepted, port: typeof address === "string" ? 0 : address.port, server };
}

/** A server that accepts and never says anything. */
async function listenInSilence(t: TestContext) {
  const accepted: Socket[] = [];
  const server = createServer((socket) => void accepted.push(socket.on("error", () => {}).resume()));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => void server.close());
  return { accepted, port: (server.address() as AddressInfo).port };
}

function pooled(t: TestContext, options: PoolOptions<string, SocketConn> = {}) {
  const pool = new Pool<string, SocketConn>({ dial: dialSocket(), ...options });
  t.after(() => pool.close({ graceMs: 0 }));
  return pool;
}

async function echo({ socket }: SocketConn, text: string): Promise<string> {
  const answer = new Promise<string>((resolve) => socket.once("data", (data) => resolve(data.toString())));
  socket.write(text);
  const said = await answer;
  socket.removeAllListeners("data");
  socket.pause();
  return said;
}

/** Waits until it holds; the file's own time limit ends what never does. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2));
}

const tlsServer = (identity = localhost) => createTlsServer(identity);

test("plain sockets are pooled: dialed once, used in turn, by host:port, [v6]:port and unix:path", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "pool-"));
  t.after(() => rm(directory, { recursive: true }));
  const path = join(directory, "socket");
  const tcp = await listen(t);
  const v6 = await listen(t, createServer(), 0, "::1").catch(() => undefined);
  const unix = await listen(t, createServer(), path);
  const keys: [string, typeof tcp][] = [
    [`127.0.0.1:${tcp.port}`, tcp],
    [`unix:${path}`, unix],
  ];
  if (v6 !== undefined) keys.push([`[::1]:${v6.port}`, v6]);
  const pool = pooled(t);
  for (const [key, { accepted }] of keys) {
    for (const text of ["one", "two", "three"]) assert.equal(await pool.use(key, (conn) => echo(conn, text)), text);
    assert.equal(accepted.length, 1);
  }
});

test("TLS takes the server name from the key's host, and trusts whom it is told to", async (t) => {
  const names: unknown[] = [];
  const server = createTlsServer({
    ...localhost,
    SNICallback: (name, done) => done(null, void names.push(name) as never),
  });
  const { port, accepted } = await listen(t, server);
  const pool = pooled(t, { dial: dialSocket({ tls: { ca } }) });
  assert.equal(await pool.use(`localhost:${port}`, (conn) => echo(conn, "secret")), "secret");
  assert.deepEqual(names, ["localhost"]);
  assert.equal(await pool.use(`127.0.0.1:${port}`, (conn) => echo(conn, "secret")), "secret"); // by its address
  assert.deepEqual(names, ["localhost"]);
  const named = dialSocket({ tls: { ca, servername: "other.test" } });
  const wrong = await rejection(pool.acquire(`localhost:${port}`, { dial: named, filter: () => false }));
  assert.match(wrong.message, /other\.test/);
  const distrusting = await rejection(pooled(t, { dial: dialSocket({ tls: true }) }).acquire(`localhost:${port}`));
  assert.equal(distrusting.name, "DialError");
  await until(() => accepted.filter(({ destroyed }) => !destroyed).length <= 2); // what was refused is closed
});

test("a certificate of another name is refused", async (t) => {
  const { port } = await listen(t, tlsServer(other));
  const pool = pooled(t, { dial: dialSocket({ tls: { ca } }) });
  const { cause } = await rejection(pool.acquire(`localhost:${port}`));
  assert.equal((cause as { code?: string }).code, "ERR_TLS_CERT_ALTNAME_INVALID");
  assert.equal(
    await pool.use(`localhost:${port}`, (conn) => echo(conn, "hi"), {
      dial: dialSocket({ tls: { ca, servername: "other.test" } }),
    }),
    "hi",
  );
});

test("the dial timeout is over everything: a peer that accepts and never answers the TLS handshake", async (t) => {
  const { accepted, port } = await listenInSilence(t);
  const pool = pooled(t, { dial: dialSocket({ tls: { ca } }), dialTimeoutMs: 60 });
  const error = await rejection(pool.acquire(`localhost:${port}`));
  assert.equal(error.name, "DialTimeoutError");
  await until(() => accepted.every(({ destroyed }) => destroyed));
});

test("several addresses of one name are tried in turn; where none answers, the error tells of each", async (t) => {
  const { port } = await listen(t);
  const asked: string[] = [];
  const lookup = (addresses: string[]) =>
    ((name: string, _: unknown, done: (error: null, all: { address: string; family: number }[]) => void) => {
      asked.push(name);
      done(
        null,
        addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
      );
    }) as never;
  const pool = pooled(t, { dial: dialSocket({ lookup: lookup(["127.0.0.2", "127.0.0.3", "127.0.0.1"]) }) });
  assert.equal(await pool.use(`many.test:${port}`, (conn) => echo(conn, "found")), "found");
  assert.deepEqual(asked, ["many.test"]);
  const none = pooled(t, { dial: dialSocket({ lookup: lookup(["127.0.0.2", "127.0.0.3"]) }) });
  const error = await rejection(none.acquire(`many.test:${port}`));
  assert.match(error.message, /127\.0\.0\.2.*127\.0\.0\.3/);
});

for (const key of [
  "",
  "host",
  "host:",
  ":80",
  "host:0",
  "host:65536",
  "host:80x",
  "[::1]",
  "[nonsense]:80",
  "::1:80",
  "unix:",
  "a b:80",
]) {
  test(`${JSON.stringify(key)} is no address: a typed error at once, and final`, async (t) => {
    const pool = pooled(t, { backoff: {} });
    const error = await rejection(pool.acquire(key, { waitForReady: true }));
    assert.deepEqual([error.name, "final" in error && error.final], ["DialError", true]);
  });
}

test("errors of Node come unchanged in cause, and wrong options throw at once", async (t) => {
  const pool = pooled(t);
  const { cause } = await rejection(pool.acquire("127.0.0.1:1"));
  assert.equal((cause as { code?: string }).code, "ECONNREFUSED");
  for (const wrong of [{ tls: 1 }, { lookup: "no" }, { tags: 1 }, { host: "x" }, null]) {
    assert.throws(() => dialSocket(wrong as never), { code: "ERR_POOL_ARGUMENT" });
  }
  assert.throws(() => dialSocket({ tls: { cert: "nonsense" } }));
  assert.throws(() => socketConn({} as never), { code: "ERR_POOL_ARGUMENT" });
  assert.throws(() => socketConn(new Socket().destroy()), { code: "ERR_POOL_ARGUMENT" });
});

test("an abandoned dial leaves no socket", async (t) => {
  const { port, accepted } = await listenInSilence(t);
  const pool = pooled(t, { dial: dialSocket({ tls: { ca } }) });
  const caller = new AbortController();
  const aborted = rejection(pool.acquire(`127.0.0.1:${port}`, { signal: caller.signal }));
  await until(() => accepted.length === 1);
  caller.abort(new Error("gone"));
  assert.equal((await aborted).message, "gone");
  await until(() => accepted.every(({ destroyed }) => destroyed));
});

for (const [what, end] of [
  ["ends the connection", (socket: Socket) => void socket.end()],
  ["resets it", (_: Socket, raw: Socket) => void raw.resetAndDestroy()],
  ["sends what nobody asked for", (socket: Socket) => void socket.write("unasked")],
] as const) {
  test(`a peer that ${what} while the conn is idle is noticed at once, over TCP and TLS`, async (t) => {
    for (const secure of [false, true]) {
      const server = secure ? tlsServer() : createServer();
      const { port, accepted } = await listen(t, server);
      const streams: Socket[] = secure ? [] : accepted;
      if (secure) server.on("secureConnection", (socket: Socket) => void streams.push(socket));
      const pool = pooled(t, { dial: dialSocket(secure ? { tls: { ca } } : {}) });
      const key = `localhost:${port}`;
      await pool.use(key, (conn) => echo(conn, "one"));
      assert.ok(streams[0] && accepted[0]);
      end(streams[0], accepted[0]);
      await until(() => pool.stats().open === 0);
      assert.equal(pool.stats().closed.died, 1);
      assert.equal(await pool.use(key, (conn) => echo(conn, "two")), "two");
      assert.equal(accepted.length, 2);
    }
  });
}

test("while it is leased its bytes are the caller's: nothing is lost between take and put either", async (t) => {
  const { port, accepted } = await listen(t);
  const pool = pooled(t);
  const key = `127.0.0.1:${port}`;
  const lease = await pool.acquire(key);
  accepted[0]?.write("pushed");
  const [data] = await new Promise<Buffer[]>((resolve) => lease.conn.socket.once("data", (...all) => resolve(all)));
  assert.equal(data?.toString(), "pushed");
  lease.conn.socket.pause();
  lease.release();
  const conn = pool.take(key);
  assert.ok(conn);
  accepted[0]?.write("pushed again"); // the pool does not mind: it is not the pool's
  const again = await new Promise<Buffer>((resolve) => conn.socket.once("data", resolve));
  assert.equal(again.toString(), "pushed again");
  conn.socket.pause();
  assert.equal(pool.put(key, conn), true);
  assert.equal(await pool.use(key, (held) => echo(held, "back")), "back");
  assert.equal(accepted.length, 1);
});

test("an idle socket does not hold the process, one in use does", async (t) => {
  const { port } = await listen(t);
  const index = new URL("../../src/index.js", import.meta.url).href;
  const run = (body: string) => {
    const program = `import { Pool, dialSocket } from ${JSON.stringify(index)};
      const pool = new Pool({ dial: dialSocket() });
      const lease = await pool.acquire("127.0.0.1:${port}");
      ${body}`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], { timeout: 60_000 });
    let output = "";
    child.stdout.on("data", (data) => (output += String(data)));
    return new Promise((resolve) => child.on("close", (code) => resolve([output.trim(), code])));
  };
  const idle = run(`lease.release(); process.on("exit", () => console.log(pool.stats().idle));`);
  const used = run(
    `setTimeout(() => { lease.release(); }, 200).unref(); process.on("exit", () => console.log(pool.stats().idle));`,
  );
  assert.deepEqual(await Promise.all([idle, used]), [
    ["1", 0],
    ["1", 0],
  ]);
});

test("a socket that its user has destroyed or ended is not handed on, not even in the same tick", async (t) => {
  const ends: [string, (socket: Socket) => unknown][] = [
    ["destroyed", (socket) => socket.destroy()],
    ["reset", (socket) => socket.resetAndDestroy()],
    ["ended", (socket) => socket.end()],
    ["destroySoon", (socket) => socket.destroySoon()],
  ];
  for (const [what, end] of ends) {
    const { port } = await listen(t);
    const key = `127.0.0.1:${port}`;
    const pool = pooled(t);
    const lease = await pool.acquire(key);
    const { conn } = lease;
    end(conn.socket);
    assert.equal(conn.draining, true, what);
    lease.release();
    assert.equal(pool.tryAcquire(key), undefined, what);
    assert.equal(await pool.use(key, (next) => echo(next, "fresh")), "fresh", what);
    assert.equal(pool.stats().dials, 2, what);
  }
});

test("a socket whose peer has ended it says so while it is leased", async (t) => {
  const { port, accepted } = await listen(t);
  const pool = pooled(t);
  const { conn } = await pool.acquire(`127.0.0.1:${port}`);
  conn.socket.resume();
  await until(() => accepted.length === 1);
  assert.equal(conn.draining, false);
  accepted[0]?.end();
  await until(() => conn.draining);
});

test("a socket that is given back with bytes that nobody read is not handed on, not even in the same tick", async (t) => {
  const { port } = await listen(t);
  const key = `127.0.0.1:${port}`;
  for (const waits of [false, true]) {
    const pool = pooled(t, { maxKeyConns: waits ? 1 : 0 });
    const lease = await pool.acquire(key);
    const next = waits ? pool.acquire(key) : undefined;
    lease.conn.socket.write("an answer and a stray one");
    await new Promise((resolve) => lease.conn.socket.once("readable", resolve));
    assert.equal(String(lease.conn.socket.read("an answer".length)), "an answer");
    lease.release();
    if (!waits) assert.equal(pool.tryAcquire(key), undefined);
    const fresh = await (next ?? pool.acquire(key));
    assert.notEqual(fresh.conn, lease.conn);
    assert.equal(await echo(fresh.conn, "mine"), "mine");
    fresh.release();
  }
});

const asking: [string, (conn: SocketConn) => Promise<string>][] = [
  ["`data` events", (conn) => echo(conn, "PING")],
  [
    "`readable` events",
    async ({ socket }) => {
      socket.write("PING");
      for (;;) {
        const answer: Buffer | null = socket.read();
        if (answer !== null) return String(answer);
        await new Promise((resolve) => socket.once("readable", resolve));
      }
    },
  ],
];
for (const [how, ask] of asking) {
  for (const secure of [false, true]) {
    const over = secure ? "TLS" : "TCP";
    test(`validate and reset may ask the peer over ${over}, with ${how}; what nobody asked for still closes the socket`, async (t) => {
      const { port, accepted } = await listen(t, secure ? tlsServer() : createServer());
      const key = `localhost:${port}`;
      const host = secure ? key : `127.0.0.1:${port}`;
      const asked: string[] = [];
      const pool = pooled(t, {
        dial: secure ? dialSocket({ tls: { ca } }) : dialSocket(),
        validateAfterMs: 0,
        validate: async (conn) => asked.push(`validate ${await ask(conn)}`) > 0,
        reset: async (conn) => void asked.push(`reset ${await ask(conn)}`),
      });
      for (let i = 0; i < 3; i++) {
        assert.equal(await pool.use(host, (conn) => echo(conn, "mine")), "mine");
        await until(() => pool.stats().blocked === 0);
      }
      assert.equal(pool.stats().dials, 1);
      assert.deepEqual(asked.slice(0, 3), ["reset PING", "validate PING", "reset PING"]);
      assert.equal(asked.length, 5);
      accepted[0]?.end();
      await until(() => pool.stats().open === 0);
    });
  }
}

test("its bytesRead grows with what the peer sends, over TCP and TLS", async (t) => {
  const servers = [
    { server: await listen(t), dial: dialSocket(), host: "127.0.0.1" },
    { server: await listen(t, tlsServer()), dial: dialSocket({ tls: { ca } }), host: "localhost" },
  ];
  for (const { server, dial, host } of servers) {
    await pooled(t, { dial }).use(`${host}:${server.port}`, async (conn) => {
      const before = conn.bytesRead ?? 0;
      await echo(conn, "x".repeat(1000));
      assert.ok((conn.bytesRead ?? 0) >= before + 1000);
    });
  }
});

test("what is no socket, and unknown options, are refused", () => {
  assert.throws(() => socketConn({} as never), { name: "PoolTypeError" });
  assert.throws(() => socketConn(new Socket(), { tag: {} } as never), { name: "PoolTypeError" });
});
