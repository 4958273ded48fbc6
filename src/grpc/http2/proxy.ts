import { request } from "node:http";
import { BlockList, isIP, type Socket } from "node:net";
import type { Address } from "../../net/address.ts";

/** The proxy that the environment names for `address`, by grpc-js' rules; `undefined`: none. */
export function proxyFor(address: Address, env: NodeJS.ProcessEnv): URL | undefined {
  const given = env["grpc_proxy"] || env["https_proxy"] || env["http_proxy"];
  if ("path" in address || !given || !URL.canParse(given)) return undefined;
  const exempt = (env["no_grpc_proxy"] || env["no_proxy"] || "").split(",");
  if (exempt.some((name) => name !== "" && (address.host.endsWith(name) || isWithin(address.host, name)))) return;
  const proxy = new URL(given);
  return proxy.protocol === "http:" ? proxy : undefined;
}

function isWithin(host: string, range: string): boolean {
  const [ip = "", bits = ""] = range.split("/");
  if (isIP(host) !== 4 || isIP(ip) !== 4 || !/^(?:\d|[12]\d|3[0-2])$/.test(bits)) return false;
  const subnet = new BlockList();
  subnet.addSubnet(ip, Number(bits));
  return subnet.check(host);
}

/** Has the proxy at the other end of `tcp` connect it to the peer. */
export function tunnel(tcp: Socket, proxy: URL, host: string, port: number): Promise<void> {
  const path = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const user = decodeURIComponent(proxy.password === "" ? proxy.username : `${proxy.username}:${proxy.password}`);
  const headers: Record<string, string> = { host: path };
  if (user !== "") headers["proxy-authorization"] = `Basic ${Buffer.from(user).toString("base64")}`;
  return new Promise((resolve, reject) => {
    const ask = request({ method: "CONNECT", path, headers, createConnection: () => tcp });
    ask.once("connect", ({ statusCode }, _, head) => {
      if (statusCode !== 200) reject(new Error(`the proxy ${proxy.host} answered ${statusCode} to CONNECT ${path}`));
      if (head.length > 0) tcp.unshift(head);
      resolve();
    });
    ask.once("error", reject).end();
  });
}
