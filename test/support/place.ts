import assert from "node:assert/strict";
import {
  type DialDrpcOptions,
  type DrpcConn,
  DrpcError,
  type DrpcHandlers,
  type DrpcListenOptions,
  DrpcServer,
  type DrpcServerOptions,
  dialDrpc,
} from "../../src/drpc/index.ts";
import { rejection } from "./outcome.ts";
import { peer, peerHandlers } from "./peer.ts";

const hello = Buffer.from("hello");
const { signal: never } = new AbortController();

/** A server of the peer service, and conns to it. */
export class Place implements AsyncDisposable {
  readonly server: DrpcServer;
  readonly conns: DrpcConn[] = [];
  key = "";

  constructor(options?: DrpcServerOptions, handlers?: Partial<DrpcHandlers<typeof peer>>) {
    this.server = new DrpcServer(options).add(peer, { ...peerHandlers(), ...handlers });
  }

  async listen(options: DrpcListenOptions = {}): Promise<this> {
    this.key = await this.server.listen({ host: "127.0.0.1", ...options });
    return this;
  }

  async dial(options?: DialDrpcOptions): Promise<DrpcConn> {
    const conn = await dialDrpc(options)(this.key, { signal: never });
    this.conns.push(conn);
    return conn;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.conns.map((conn) => conn.close()));
    await this.server.close({ graceMs: 200 });
  }
}

export async function tryEcho(conn: DrpcConn): Promise<void> {
  assert.equal((await conn.invoke(peer.echo, hello)).toString(), "hello");
}

export async function tryAll(conn: DrpcConn): Promise<void> {
  await tryEcho(conn);

  const metadata = await conn.invoke(peer.metadata, hello, { metadata: { a: "1" } });
  assert.deepEqual(JSON.parse(metadata.toString()), { a: "1" });

  const error = await rejection(conn.invoke(peer.fail, Buffer.from("18446744073709551615 oh")));
  assert(error instanceof DrpcError);
  assert.deepEqual([error.message, error.code], ["oh", 2n ** 64n - 1n]);
  await assert.rejects(conn.invoke({ ...peer.echo, path: "/no/Such" }, hello), { code: 12 });

  const count = await conn.newStream(peer.count);
  await count.closeSend(Buffer.from("300"));
  const counted: string[] = [];
  for await (const message of count) counted.push(message.toString());
  assert.equal(counted.at(-1), "299");

  const collect = await conn.newStream(peer.collect);
  for (const letter of "abc") await collect.send(Buffer.from(letter));
  await collect.closeSend();
  for await (const message of collect) assert.equal(message.toString(), "abc");

  const chat = await conn.newStream(peer.chat);
  const replies = chat[Symbol.asyncIterator]();
  for (let i = 0; i < 20; i++) {
    await chat.send(Buffer.from(`${i}`));
    assert.equal((await replies.next()).value?.toString(), `${i}`);
  }
  await chat.closeSend();
  assert.equal((await replies.next()).done, true);

  const big = Buffer.alloc(3 << 20, "big");
  assert(big.equals(await conn.invoke(peer.echo, big)));
}
