/** Keys that are no addresses: node IDs, with pinned identities, over real TLS. */

import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { type DialDrpcOptions, DrpcServer, type DrpcTlsOptions, dialDrpc } from "../../src/drpc/index.ts";
import { Pool } from "../../src/index.ts";
import { ca, type Identity, localhost, other, stranger } from "../support/certs.ts";
import { reasonOf, rejection } from "../support/outcome.ts";
import { peer, peerHandlers } from "../support/peer.ts";

const hello = Buffer.from("hello");
const { signal: never } = new AbortController();

/** The hash of a certificate's public key: the node's name for itself. */
function idOf(certificate: X509Certificate): string {
  const key = certificate.publicKey.export({ type: "spki", format: "der" });
  return createHash("sha256").update(key).digest("hex");
}

const identities: readonly Identity[] = [localhost, other, stranger];
const ids = identities.map(({ cert }) => idOf(new X509Certificate(cert)));

describe("dialDrpc for keys that are no addresses", () => {
  const servers = identities.map((_, i) => {
    return new DrpcServer().add(peer, { ...peerHandlers(), echo: () => Buffer.from(ids[i] ?? "") });
  });
  const addresses = new Map<string, string>();

  before(async () => {
    for (const [i, tls] of identities.entries()) {
      const server = servers[i];
      const id = ids[i];
      if (server && id)
        addresses.set(id, await server.listen({ host: "127.0.0.1", tls: { ...tls, ca, requestCert: true } }));
    }
  });
  after(() => Promise.all(servers.map((server) => server.close({ graceMs: 0 }))));

  const address = (id: string): string => addresses.get(id) ?? "";
  const pinned: DialDrpcOptions<string> & { address: typeof address } = {
    address,
    tls: { ...other, rejectUnauthorized: false },
    checkPeer: (socket, id) => {
      const certificate = socket.getPeerX509Certificate();
      return certificate !== undefined && idOf(certificate) === id;
    },
  };

  test("a pool keyed by node IDs reaches each node, and nobody else in its place", async () => {
    await using pool = new Pool<string>({ dial: dialDrpc(pinned) });
    for (let round = 0; round < 2; round++) {
      for (const id of ids) assert.equal((await pool.get(id).invoke(peer.echo, hello)).toString(), id);
    }
    assert.equal(pool.stats().dials, 3);

    const [one = "", two = ""] = ids;
    const swapped = dialDrpc({ ...pinned, address: (id: string) => address(id === one ? two : one) });
    const error = await rejection(Promise.resolve(swapped(one, { signal: never })));
    assert.match(String(error), /`checkPeer` refused/);
    assert(String(error).includes(one) && String(error).includes(address(two)), "who was dialed, and where");
  });

  test("a peer that moves is found at its next dial", async () => {
    const [one = "", two = ""] = ids;
    let at = address(two);
    const dial = dialDrpc({ ...pinned, address: () => at });
    await assert.rejects(Promise.resolve(dial(one, { signal: never })), { code: "ERR_POOL_DIAL" });
    at = address(one);
    const conn = await dial(one, { signal: never });
    assert.equal((await conn.invoke(peer.echo, hello)).toString(), one);
    await conn.close();
  });

  test("tls says for each key whom to trust and who to be", async () => {
    interface Node {
      readonly host: string;
      readonly trusted: string;
      readonly identity?: Identity | undefined;
    }
    const asked: Node[] = [];
    const options = new Map<Node, DrpcTlsOptions>();
    const tls = (node: Node): DrpcTlsOptions => {
      asked.push(node);
      const known = options.get(node) ?? { ca: node.trusted, ...node.identity, servername: "localhost" };
      options.set(node, known);
      return known;
    };
    const dial = dialDrpc<Node>({ address: ({ host }) => Promise.resolve(host), tls });
    const [one = "", , three = ""] = ids;
    const nodes: Node[] = [
      { host: address(one), trusted: ca, identity: other },
      { host: address(three), trusted: stranger.cert, identity: other },
    ];
    await using pool = new Pool<Node>({ dial });
    for (const [i, node] of nodes.entries()) {
      assert.equal((await pool.get(node).invoke(peer.echo, hello)).toString(), i === 0 ? one : three);
    }
    assert.deepEqual(asked, nodes);
    const nobody = await dial({ host: address(one), trusted: ca }, { signal: never });
    await assert.rejects(
      nobody.invoke(peer.echo, hello),
      { code: "ERR_POOL_CONN_CLOSED" },
      "it asks for a certificate",
    );
    const wrong: Node = { host: address(three), trusted: ca };
    await assert.rejects(Promise.resolve(dial(wrong, { signal: never })), { code: "DEPTH_ZERO_SELF_SIGNED_CERT" });
  });

  test("certificates of options that come again are read once", async () => {
    let read = 0;
    const own: DrpcTlsOptions = {
      get ca() {
        read++;
        return ca;
      },
      servername: "localhost",
    };
    const dial = dialDrpc({ address, tls: () => own });
    const [one = ""] = ids;
    for (let i = 0; i < 3; i++) await (await dial(one, { signal: never })).close();
    const reads = read;
    await (await dial(one, { signal: never })).close();
    assert.equal(read, reads);
  });

  test("a key without an answer is never dialed in the clear", async () => {
    const plain = new DrpcServer().add(peer, peerHandlers());
    const at = await plain.listen({ host: "127.0.0.1" });
    const lacking = [undefined, null, "yes", 1] as unknown as boolean[];
    for (const answer of lacking) {
      for (const tls of [() => answer, () => Promise.resolve(answer)]) {
        const dial = dialDrpc({ address: () => at, tls });
        await assert.rejects(Promise.resolve(dial("node", { signal: never })), { code: "ERR_POOL_ARGUMENT" });
      }
    }
    const unchecked = dialDrpc({ address: () => at, tls: () => false, checkPeer: () => true });
    await assert.rejects(Promise.resolve(unchecked("node", { signal: never })), { code: "ERR_POOL_ARGUMENT" });
    const clear = await dialDrpc({ address: () => at, tls: () => false })("node", { signal: never });
    assert.equal((await clear.invoke(peer.echo, hello)).toString(), "hello");
    await clear.close();
    await plain.close({ graceMs: 0 });
  });

  test("what address and tls throw is the dial's error, an address of no known form is final, and time counts", async () => {
    const wrong = new Error("no such node");
    const key = { id: Object.create(null) as object, secret: "s3cret" };
    const dialed = (options: Omit<DialDrpcOptions<typeof key>, "address">, at: () => unknown): Promise<unknown> =>
      rejection(Promise.resolve(dialDrpc({ ...options, address: at as () => string })(key, { signal: never })));
    const thrower = (): never => {
      throw wrong;
    };
    assert.equal(await dialed({}, thrower), wrong);
    assert.equal(await dialed({}, () => Promise.reject(wrong)), wrong);
    assert.equal(await dialed({ tls: thrower }, () => "127.0.0.1:1"), wrong);
    for (const at of [undefined, 42, "", "nowhere", Object.create(null)]) {
      const error = await dialed({}, () => at);
      assert(error instanceof Error && "final" in error && error.final === true, String(at === undefined));
      assert(!error.message.includes("s3cret"));
    }
    const forever = (): Promise<never> => new Promise(() => {});
    const late = await dialed({ connectTimeoutMs: 20 }, forever);
    assert(late instanceof Error && "code" in late && late.code === "ERR_POOL_DIAL_TIMEOUT");
    assert(!late.message.includes("s3cret"));
    const controller = new AbortController();
    const dialing = reasonOf(Promise.resolve(dialDrpc({ address: forever })("node", controller)));
    controller.abort("enough");
    assert.equal(await dialing, "enough");
  });

  test("wrong options are refused at once", () => {
    for (const bad of [
      { address: "127.0.0.1:1" },
      { address: 1 },
      { checkPeer: () => true },
      { tls: 1 },
    ] as unknown[]) {
      assert.throws(() => dialDrpc(bad as DialDrpcOptions), { code: "ERR_POOL_ARGUMENT" });
    }
  });
});
