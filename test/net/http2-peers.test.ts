import assert from "node:assert/strict";
import { test } from "node:test";
import { createSecureContext } from "node:tls";
import { type Http2Peer, http2Peers } from "../../src/http2/index.ts";
import { ca, localhost, other } from "../support/certs.ts";

const origin = "https://localhost:1";

test("peers are the same by what their TLS options contain, where that says all", () => {
  const { hashKey } = http2Peers();
  const hash = (tls: Http2Peer["tls"]) => hashKey({ origin, tls });
  assert.equal(hash({ ca, ...localhost }), hash({ ...localhost, ca }));
  assert.equal(hash({ ca: Buffer.from(ca) }), hash({ ca: Buffer.from(ca) }));
  assert.equal(hash({ ca: [ca, ca] }), hash({ ca: [ca, ca] }));
  assert.equal(hash({ ca, cert: undefined }), hash({ ca }));
  const secureContext = createSecureContext({ ca });
  assert.equal(hash({ secureContext }), hash({ secureContext }));
  assert.equal(hashKey({ origin: "https://LOCALHOST:1/path" }), hashKey({ origin }));
});

test("what is not known to be the same is different", () => {
  const { hashKey } = http2Peers();
  const all: Http2Peer["tls"][] = [
    undefined,
    {},
    { ca },
    { ca: Buffer.from(ca) },
    { ca: [ca] },
    { ca: [ca, ca] },
    { ca: [`${ca}${ca}`] },
    { ca, ...localhost },
    { ca, ...other },
    { ca, rejectUnauthorized: false },
    { ca, rejectUnauthorized: true },
    { ca, servername: "1" },
    { ca, minDHSize: 1 },
    { ca, minDHSize: Number.NaN },
    { ca, minDHSize: Number.POSITIVE_INFINITY },
    { ca, checkServerIdentity: () => undefined },
    { ca, checkServerIdentity: () => undefined },
    { secureContext: createSecureContext({ ca }) },
    { secureContext: createSecureContext({ ca }) },
  ];
  assert.equal(new Set(all.map((tls) => hashKey({ origin, tls }))).size, all.length);
  assert.notEqual(hashKey({ origin }), hashKey({ origin: "https://localhost:2" }));
  assert.notEqual(hashKey({ origin }), hashKey({ origin: "http://localhost:1" }));
});

test("no key shows a secret, and keys without TLS need none", () => {
  const { hashKey } = http2Peers();
  const key = hashKey({ origin, tls: { ca, ...localhost, passphrase: "hunter2" } });
  assert.ok(key.length < 100);
  assert.doesNotMatch(key, /hunter2|BEGIN/);
  assert.equal(hashKey({ origin: "http://localhost:1", tls: { ca } }), "http://localhost:1");
  assert.throws(() => hashKey({ origin: "localhost:1" }), { name: "PoolTypeError" });
});
