import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import type { TLSSocket } from "node:tls";
import { type DialDrpcOptions, type DrpcConn, DrpcServer, dialDrpc } from "../../src/drpc/index.ts";
import { ConnClosedError, isPoolError } from "../../src/errors.ts";
import { ca, localhost, other, stranger } from "../support/certs.ts";
import { reasonOf, rejection } from "../support/outcome.ts";
import { peer, peerHandlers } from "../support/peer.ts";

const hello = Buffer.from("hello");
const { signal: never } = new AbortController();
const server = new DrpcServer().add(peer, peerHandlers());

async function listen(options: Parameters<DrpcServer["listen"]>[0] = {}, host = "127.0.0.1"): Promise<number> {
  return Number((await server.listen({ host, ...options })).split(":").at(-1));
}

async function open(key: string, options?: DialDrpcOptions, signal: AbortSignal = never): Promise<DrpcConn> {
  return await dialDrpc(options)(key, { signal });
}

async function tryOut(key: string, options?: DialDrpcOptions): Promise<DrpcConn> {
  const conn = await open(key, options);
  assert.equal((await conn.invoke(peer.echo, hello)).toString(), "hello");
  await conn.close();
  return conn;
}

describe("dialDrpc", () => {
  after(() => server.close({ graceMs: 0 }));

  test("announces one stream per conn", () => {
    assert.equal(dialDrpc().maxStreams, 1);
  });

  test("dials what `listen` returns", async () => {
    const keys = [
      await server.listen({ host: "127.0.0.1" }),
      await server.listen({ path: join(tmpdir(), `d${process.pid}`) }),
    ];
    assert.match(keys.join(" "), /^127\.0\.0\.1:\d+ unix:\//);
    for (const key of keys) await tryOut(key);
  });

  test("dials names, IPv4 and IPv6", async (t) => {
    const port = await listen({}, "localhost");
    await tryOut(`localhost:${port}`);
    await tryOut(`127.0.0.1:${await listen()}`);
    try {
      await tryOut(`[::1]:${await listen({}, "::1")}`);
    } catch (error) {
      if (!["EADDRNOTAVAIL", "EAFNOSUPPORT"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
      t.diagnostic("there is no IPv6 here");
    }
  });

  test("what a conn has received stays as it is, whatever the others receive", async () => {
    const key = `127.0.0.1:${await listen()}`;
    const conns = await Promise.all(Array.from({ length: 5 }, () => open(key)));
    const kept = conns.map(async (conn, i): Promise<Buffer[]> => {
      const echoes: Buffer[] = [];
      for (let call = 0; call < 20; call++)
        echoes.push(await conn.invoke(peer.echo, Buffer.alloc(50 << (call % 13), i)));
      return echoes;
    });
    for (const [i, echoes] of (await Promise.all(kept)).entries()) {
      for (const [call, echo] of echoes.entries()) assert(echo.equals(Buffer.alloc(50 << (call % 13), i)));
    }
    await Promise.all(conns.map((conn) => conn.close()));
  });

  test("an unusable address is refused at once, for good", async () => {
    for (const key of [
      "",
      "host",
      ":1",
      "host:",
      "host:0",
      "host:65536",
      "host:1x",
      "::1:80",
      "[::1]",
      "[x]:1",
      "unix:",
      "a b:1",
    ]) {
      const error = await rejection(open(key));
      assert(isPoolError(error) && error.code === "ERR_POOL_DIAL" && "final" in error && error.final === true, key);
      assert.match(error.message, /cannot dial/);
    }
  });

  test("Node's errors come unchanged", async () => {
    const port = await new Promise<number>((resolve) => {
      const free = createServer().listen(0, "127.0.0.1", () => {
        const { port } = free.address() as AddressInfo;
        free.close(() => resolve(port));
      });
    });
    await assert.rejects(open(`127.0.0.1:${port}`), { code: "ECONNREFUSED" });
    await assert.rejects(open("unix:/nowhere/at/all.sock"), { code: "ENOENT" });
  });

  test("TLS checks the name of the key's host, or the one that is asked for", async () => {
    const port = await listen({ tls: localhost });
    const conn = await tryOut(`localhost:${port}`, { tls: { ca } });
    assert.equal((conn.duplex as TLSSocket).servername, "localhost");
    await tryOut(`127.0.0.1:${port}`, { tls: { ca } });
    const mine = await listen({ tls: other });
    await assert.rejects(open(`localhost:${mine}`, { tls: { ca } }), { code: "ERR_TLS_CERT_ALTNAME_INVALID" });
    await tryOut(`localhost:${mine}`, { tls: { ca, servername: "other.test" } });
    await assert.rejects(open(`localhost:${port}`, { tls: true }), { code: "UNABLE_TO_VERIFY_LEAF_SIGNATURE" });
    const forged = await listen({ tls: stranger });
    await assert.rejects(open(`localhost:${forged}`, { tls: { ca } }), { code: "DEPTH_ZERO_SELF_SIGNED_CERT" });
  });

  test("client certificates", async () => {
    const port = await listen({ tls: { ...localhost, ca, requestCert: true } });
    await tryOut(`localhost:${port}`, { tls: { ca, ...other } });
    // In TLS 1.3 the server refuses only after the client is done.
    const refused = await open(`localhost:${port}`, { tls: { ca } });
    await assert.rejects(refused.invoke(peer.echo, hello), { code: "ERR_POOL_CONN_CLOSED" });
  });

  test("a peer that accepts and says nothing ends in a DialTimeoutError, its socket closed", async () => {
    await using silent = await Silent.start();
    const error = await rejection(open(silent.key, { tls: true, connectTimeoutMs: 30 }));
    assert(isPoolError(error) && error.code === "ERR_POOL_DIAL_TIMEOUT");
    await silent.gone();
  });

  test("the signal ends a dial with its reason, and closes the socket", async () => {
    await using silent = await Silent.start();
    const controller = new AbortController();
    const dialing = open(silent.key, { tls: true }, controller.signal);
    await silent.here();
    controller.abort("enough");
    assert.equal(await reasonOf(dialing), "enough");
    await silent.gone();
    assert.equal(await reasonOf(open(silent.key, {}, AbortSignal.abort("before"))), "before");
  });

  test("checkPeer sees the certificate, and what it throws is the dial's error", async () => {
    const key = `localhost:${await listen({ tls: stranger })}`;
    const tls = { rejectUnauthorized: false };
    const seen: string[] = [];
    const checkPeer = async (socket: TLSSocket, peerKey: string): Promise<void> => {
      seen.push(`${peerKey} ${socket.getPeerX509Certificate()?.subject}`);
    };
    await tryOut(key, { tls, checkPeer });
    assert.deepEqual(seen, [`${key} CN=stranger`]);

    const wrong = new Error("not who it should be");
    const refusals: [DialDrpcOptions["checkPeer"], (error: unknown) => boolean][] = [
      [() => Promise.reject(wrong), (error) => error === wrong],
      [
        () => {
          throw wrong;
        },
        (error) => error === wrong,
      ],
      [() => false, (error) => isPoolError(error) && error.code === "ERR_POOL_DIAL"],
    ];
    for (const [refuse, expected] of refusals) {
      let socket: Socket | undefined;
      const error = await rejection(
        open(key, {
          tls,
          checkPeer: (peer, peerKey) => {
            socket = peer;
            return refuse?.(peer, peerKey);
          },
        }),
      );
      assert(expected(error), String(error));
      assert(socket?.destroyed);
    }
    const forever = (): Promise<void> => new Promise(() => {});
    await assert.rejects(open(key, { tls, checkPeer: forever, connectTimeoutMs: 50 }), {
      code: "ERR_POOL_DIAL_TIMEOUT",
    });
  });

  test("a peer that resets the connection under an RPC: the cause is the reset, and the request may be there", async () => {
    const rude = createServer((socket) => socket.once("data", () => socket.resetAndDestroy()));
    await new Promise<void>((resolve) => rude.listen(0, "127.0.0.1", resolve));
    const conn = await open(`127.0.0.1:${(rude.address() as AddressInfo).port}`);
    await assert.rejects(conn.invoke(peer.echo, hello), (error) => {
      assert(error instanceof ConnClosedError);
      assert.deepEqual([error.reason, error.sent], ["died", true]);
      assert.equal((error.cause as NodeJS.ErrnoException).code, "ECONNRESET");
      return true;
    });
    await assert.rejects(conn.invoke(peer.echo, hello), { sent: false });
    rude.close();
  });

  test("options are checked at once, certificates too", () => {
    const bad: Record<string, unknown>[] = [
      { nope: 1 },
      { tls: "yes" },
      { tls: null },
      { checkPeer: () => {} },
      { tls: true, checkPeer: 1 },
      { connectTimeoutMs: -1 },
      { maxPacketBytes: "1" },
      { cancel: "later" },
    ];
    for (const options of bad) {
      assert.throws(() => dialDrpc(options), { code: "ERR_POOL_ARGUMENT" }, Object.keys(options).join());
    }
    assert.throws(() => dialDrpc({ tls: { cert: "no certificate" } }));
  });

  test("a conn without an RPC does not keep the process alive, one with an RPC does", async () => {
    for (const [tls, port] of [
      [false, await listen()],
      [true, await listen({ tls: localhost })],
    ] as const) {
      const code = `
        import { dialDrpc } from ${JSON.stringify(new URL("../../src/drpc/index.js", import.meta.url))};
        import { peer } from ${JSON.stringify(new URL("../support/peer.js", import.meta.url))};
        const dial = dialDrpc({ tls: ${tls} && { rejectUnauthorized: false } });
        const conn = await dial("127.0.0.1:${port}", new AbortController());
        await conn.invoke(peer.echo, Buffer.alloc(0));
        conn.invoke(peer.hang, Buffer.alloc(0), { timeoutMs: 100 }).catch((error) => console.log(error.name));`;
      const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      let out = "";
      child.stdout.on("data", (data) => {
        out += data;
      });
      assert.equal(await new Promise((resolve) => child.once("close", resolve)), 0);
      assert.equal(out.trim(), "DrpcTimeoutError");
    }
  });
});

/** Accepts connections and says nothing. */
class Silent implements AsyncDisposable {
  readonly #server: Server;
  readonly #accepted: Promise<Socket>;

  constructor(server: Server) {
    this.#server = server;
    this.#accepted = new Promise((resolve) => server.once("connection", resolve));
  }

  static async start(): Promise<Silent> {
    const server = createServer((socket) => socket.on("error", () => {}).resume());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new Silent(server);
  }

  get key(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async here(): Promise<void> {
    await this.#accepted;
  }

  async gone(): Promise<void> {
    const socket = await this.#accepted;
    if (!socket.closed) await new Promise((resolve) => socket.once("close", resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    (await this.#accepted).destroy();
    this.#server.close();
  }
}
