import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import { dialService } from "../../src/resolve/index.ts";
import { deferred, FakeClock } from "../../src/testing/index.ts";

/** A conn of a class with private fields, and with every optional member. */
class Full implements PoolConn {
  readonly #closed = deferred();
  #streams = 1;
  #listener: (() => void) | undefined;
  readonly calls: string[] = [];
  draining = false;
  maxLifetimeMs: number | undefined;
  bytesRead = 0;
  peerStreams = 0;
  tags: Record<string, unknown> = { zone: "a" };
  blocked: Promise<void> | undefined;

  get closed(): Promise<void> {
    return this.#closed.promise;
  }
  get maxStreams(): number {
    return this.#streams;
  }
  set maxStreams(streams: number) {
    this.#streams = streams;
    this.#listener?.();
  }
  close(): void {
    this.calls.push("close");
    this.#closed.resolve();
  }
  unblocked(): Promise<void> | undefined {
    return this.#streams > 0 ? this.blocked : undefined;
  }
  ref(): void {
    this.calls.push(`ref ${this.#streams}`);
  }
  unref(): void {
    this.calls.push(`unref ${this.#streams}`);
  }
  async ping({ signal }: { signal: AbortSignal }): Promise<string> {
    return `pong ${this.#streams} ${signal.aborted}`;
  }
  onChange(listener: () => void): void {
    this.#listener = listener;
  }
}

async function wrapped<C extends PoolConn>(inner: C, addresses: readonly string[] = ["a:1"]) {
  let known = addresses;
  const clock = new FakeClock();
  const dial = dialService<string, C>({ resolve: () => known, dial: () => inner, clock });
  const conn = await dial("svc", { signal: new AbortController().signal });
  const change = async (next: readonly string[]) => {
    known = next;
    await dial.refresh("svc");
  };
  return { conn, change };
}

test("every member of the conn stays live through the wrapper", async () => {
  const inner = new Full();
  const { conn } = await wrapped(inner);
  assert.ok(conn instanceof Full);
  assert.notEqual(conn, inner);
  for (const [name, value] of Object.entries({ maxStreams: 7, maxLifetimeMs: 5, bytesRead: 9, peerStreams: 2 })) {
    Object.assign(inner, { [name]: value });
    assert.equal(Reflect.get(conn, name), value, name);
  }
  inner.tags = { zone: "b" };
  assert.deepEqual(conn.tags, { address: "a:1", zone: "b" });
  inner.blocked = Promise.resolve();
  assert.equal(conn.unblocked(), inner.blocked);
  conn.ref();
  conn.unref();
  assert.equal(await conn.ping({ signal: new AbortController().signal }), "pong 7 false");
  conn.maxStreams = 3;
  assert.equal(inner.maxStreams, 3);
  assert.equal(Reflect.get(conn, "unblocked"), Reflect.get(conn, "unblocked"), "one function, as on the conn itself");
  assert.equal(conn.draining, false);
  inner.draining = true;
  assert.equal(conn.draining, true);
  assert.deepEqual(Object.keys(conn).toSorted(), Object.keys(inner).toSorted());
  conn.close();
  await conn.closed;
  assert.deepEqual(inner.calls, ["ref 7", "unref 7", "close"]);
});

test("an optional member that the conn does not have, the wrapper does not have either", async () => {
  const { conn } = await wrapped<PoolConn>({ close() {}, closed: new Promise(() => {}) });
  for (const name of ["unblocked", "maxStreams", "maxLifetimeMs", "ref", "unref", "bytesRead", "ping", "peerStreams"]) {
    assert.equal(name in conn, false, name);
    assert.equal(Reflect.get(conn, name), undefined, name);
  }
  assert.ok(!conn.draining);
  assert.deepEqual(conn.tags, { address: "a:1" });
});

test("changes of the conn and of the addresses both reach whoever listens", async () => {
  const inner = new Full();
  const { conn, change } = await wrapped(inner);
  let changes = 0;
  conn.onChange(() => changes++);
  inner.maxStreams = 4;
  assert.equal(changes, 1);
  await change(["b:1"]);
  assert.equal(changes, 2);
  assert.equal(conn.draining, true);
  assert.equal(inner.draining, false, "the conn itself is not written to");
});

test("a frozen conn can be wrapped", async () => {
  const inner: PoolConn = Object.freeze({
    close() {},
    closed: new Promise(() => {}),
    draining: false,
    unblocked: () => undefined,
  });
  const { conn, change } = await wrapped(inner);
  assert.equal(conn.unblocked?.(), undefined);
  await change(["b:1"]);
  assert.equal(conn.draining, true);
});
