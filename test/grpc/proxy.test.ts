import assert from "node:assert/strict";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { after, afterEach, before, describe, test } from "node:test";
import { credentials, ServerCredentials, status } from "@grpc/grpc-js";
import { dialGrpc } from "../../src/grpc/index.ts";
import { ca, localhost } from "../support/certs.ts";
import { echoService, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";

const insecure = credentials.createInsecure();
const tls = ServerCredentials.createSsl(null, [
  { cert_chain: Buffer.from(localhost.cert), private_key: Buffer.from(localhost.key) },
]);
const never = new AbortController().signal;
const names = ["grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"] as const;

describe("a proxy from the environment", () => {
  /** What the proxy was asked for, with which authorization. */
  const asked: (string | undefined)[] = [];
  /** It connects every name to this machine, and refuses `forbidden.test`. */
  const proxy = createServer().on("connect", ({ url = "", headers }, from) => {
    asked.push(url, headers["proxy-authorization"]);
    if (url.startsWith("forbidden")) {
      from.end("HTTP/1.1 403 Forbidden\r\n\r\n");
      return;
    }
    const to = connect(Number(url.split(":").at(-1)), "127.0.0.1", () => from.write("HTTP/1.1 200 OK\r\n\r\n"));
    to.on("error", () => {}).pipe(from);
    from.on("error", () => {}).pipe(to);
  });
  const saved = names.map((name) => [name, process.env[name]] as const);
  let port = 0;
  const environment = (values: Partial<Record<(typeof names)[number], string>>): void => {
    for (const name of names) delete process.env[name];
    Object.assign(process.env, values);
  };
  before(async () => {
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    port = (proxy.address() as AddressInfo).port;
  });
  afterEach(() => {
    asked.length = 0;
    environment(Object.fromEntries(saved.filter(([, value]) => value !== undefined)));
  });
  after(() => proxy.close());

  async function talk(key: string, secure = insecure, options = {}): Promise<void> {
    const conn = await dialGrpc(secure, options)(key, { signal: never });
    assert.deepEqual(await conn.invoke(echoService.unary, { text: "x" }), { text: "x" });
    await conn.close();
  }

  test("connects, and looks the name up", async () => {
    await using echo = await startEcho();
    for (const name of ["grpc_proxy", "https_proxy", "http_proxy"] as const) {
      environment({ [name]: `http://127.0.0.1:${port}` });
      await talk(`backend.test:${echo.port}`);
    }
    assert.deepEqual(
      asked,
      Array(3)
        .fill([`backend.test:${echo.port}`, undefined])
        .flat(),
    );
  });

  test("is told the user and the password", async () => {
    await using echo = await startEcho();
    environment({ grpc_proxy: `http://ada:l%40ve@127.0.0.1:${port}`, http_proxy: "http://127.0.0.1:1" });
    await talk(`backend.test:${echo.port}`);
    assert.equal(asked[1], `Basic ${Buffer.from("ada:l@ve").toString("base64")}`);
  });

  test("carries TLS to the peer itself", async () => {
    await using echo = await startEcho(tls);
    environment({ https_proxy: `http://127.0.0.1:${port}` });
    await talk(`localhost:${echo.port}`, credentials.createSsl(Buffer.from(ca)));
    assert.equal(asked[0], `localhost:${echo.port}`);
  });

  test("is left out for the names and networks of no_proxy, and where it is switched off", async () => {
    await using echo = await startEcho();
    const http_proxy = `http://127.0.0.1:${port}`;
    for (const no_proxy of ["x.test,127.0.0.0/8", "127.0.0.1", "0.0.1"]) {
      environment({ http_proxy, no_proxy });
      await talk(echo.address);
    }
    environment({ http_proxy, no_proxy: "x.test", no_grpc_proxy: "127.0.0.1/32" });
    await talk(echo.address);
    environment({ http_proxy });
    await talk(echo.address, insecure, { "grpc.enable_http_proxy": 0 });
    assert.deepEqual(asked, []);
    environment({ http_proxy, no_proxy: "128.0.0.0/8,x.test,127.0.0.0/x" });
    await talk(echo.address);
    assert.equal(asked.length, 2);
  });

  test("is not used where it cannot be: another scheme, no URL", async () => {
    await using echo = await startEcho();
    for (const http_proxy of ["socks5://127.0.0.1:1", "nonsense"]) {
      environment({ http_proxy });
      await talk(echo.address);
    }
  });

  test("that refuses fails the dial", async () => {
    environment({ http_proxy: `http://127.0.0.1:${port}` });
    const error = await rejection((async () => dialGrpc(insecure)("forbidden.test:1", { signal: never }))());
    assert.equal(Object(error).code, status.UNAVAILABLE);
  });
});
