import type { ChannelOptions } from "@grpc/grpc-js";
import { show } from "../../argument.ts";
import { PoolRangeError, PoolTypeError } from "../../errors.ts";
import { windowBytes } from "../dial.ts";
import { connectionScaling } from "../peers.ts";
import { type Encoding, encodings } from "./compression.ts";
import type { KeepaliveOptions } from "./keepalive.ts";

/** What channel options ask for, checked and complete. */
export interface TransportOptions extends KeepaliveOptions {
  readonly userAgent: string;
  /** Instead of the target's own. */
  readonly authority: string | undefined;
  /** Bytes; -1: any number. */
  readonly maxSendBytes: number;
  readonly maxReceiveBytes: number;
  readonly encoding: Encoding;
  /** Whether the environment may name a proxy. */
  readonly proxies: boolean;
  /** Bytes that a peer may send on one stream, and on all together, before they are read. */
  readonly streamWindow: number;
  readonly sessionWindow: number;
  /** Node's limit on memory of a session, in megabytes. */
  readonly maxSessionMemory: number;
}

/** As this package calls itself to servers: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#user-agents */
const ownName = "grpc-node-rpc-conn-pool/0.1.0";

/** Options of grpc-js that mean nothing here, and change nothing that a user could see: pools do what they are about. */
const idle = new Set([
  "grpc.use_local_subchannel_pool",
  "grpc.initial_reconnect_backoff_ms",
  "grpc.max_reconnect_backoff_ms",
  "grpc.client_idle_timeout_ms",
  "grpc.dns_min_time_between_resolutions_ms",
  "grpc.service_config_disable_resolution",
  "grpc.enable_retries",
  "grpc-node.tls_enable_trace", // the credentials read it
  "grpc.ssl_target_name_override", // as well
]);

const known = {
  "grpc.primary_user_agent": "string",
  "grpc.secondary_user_agent": "string",
  "grpc.default_authority": "string",
  "grpc.keepalive_time_ms": "number",
  "grpc.keepalive_timeout_ms": "number",
  "grpc.keepalive_permit_without_calls": "number",
  "grpc.max_send_message_length": "number",
  "grpc.max_receive_message_length": "number",
  "grpc.default_compression_algorithm": "number",
  "grpc.enable_http_proxy": "number",
  "grpc-node.flow_control_window": "number",
  "grpc-node.max_session_memory": "number",
} as const;

type Known = keyof typeof known;

/** The largest window of HTTP/2: https://www.rfc-editor.org/rfc/rfc9113#section-6.9.1 */
const largestWindow = 2 ** 31 - 1;

/**
 * Reads channel options by grpc-js' names.
 *
 * @throws PoolTypeError or PoolRangeError for wrong values, and for what only grpc-js' own channel does.
 */
export function readOptions(options: ChannelOptions): TransportOptions {
  if (typeof options !== "object" || options === null) {
    throw new PoolTypeError("Expected the channel options to be an object");
  }
  for (const [name, value] of Object.entries(options)) check(name, value);
  const number = (name: Known, usual: number): number => Number(options[name] ?? usual);
  const window = options["grpc-node.flow_control_window"];
  const encoding = encodings[number("grpc.default_compression_algorithm", 0)];
  if (encoding === undefined) {
    throw new PoolRangeError("Expected `grpc.default_compression_algorithm` to be 0, 1 (deflate) or 2 (gzip)");
  }
  if (window !== undefined && !(Number.isSafeInteger(window) && window >= 0xffff && window <= largestWindow)) {
    throw new PoolRangeError(
      `Expected \`grpc-node.flow_control_window\` to be from 65535 to 2147483647, got ${window}`,
    );
  }
  return {
    userAgent: [options["grpc.primary_user_agent"], ownName, options["grpc.secondary_user_agent"]]
      .filter((part) => part)
      .join(" "),
    authority: options["grpc.default_authority"],
    maxSendBytes: number("grpc.max_send_message_length", -1),
    maxReceiveBytes: number("grpc.max_receive_message_length", 4 << 20),
    encoding,
    proxies: number("grpc.enable_http_proxy", 1) !== 0,
    // Node opens the session's window as bytes come, and a stream's as they are read: only the latter bounds memory.
    streamWindow: window ?? windowBytes,
    sessionWindow: window ?? 16 << 20,
    maxSessionMemory: number("grpc-node.max_session_memory", Number.MAX_SAFE_INTEGER),
    keepaliveMs: number("grpc.keepalive_time_ms", -1),
    keepaliveTimeoutMs: number("grpc.keepalive_timeout_ms", 20_000),
    keepaliveWhileIdle: number("grpc.keepalive_permit_without_calls", 0) === 1,
  };
}

function check(name: string, value: unknown): void {
  if (value === undefined || idle.has(name)) return;
  if (Object.hasOwn(known, name)) {
    const type = known[name as Known]; // an own name of it
    if (typeof value !== type) throw new PoolTypeError(`Expected \`${name}\` to be a ${type}, got ${show(value)}`);
    if (Number.isNaN(value)) throw new PoolRangeError(`Expected \`${name}\` to be a number, got NaN`);
    return;
  }
  if (name === "grpc.service_config") checkServiceConfig(value);
  else if (!(value === 0 && name === "grpc.enable_channelz")) refuse(`\`${name}\``);
}

/** Of a service config, nothing but `connectionScaling` is about conns: see the function of that name. */
function checkServiceConfig(config: unknown): void {
  if (typeof config !== "string")
    throw new PoolTypeError(`Expected \`grpc.service_config\` to be JSON, got ${show(config)}`);
  connectionScaling({ "grpc.service_config": config });
  for (const name of Object.keys(Object(JSON.parse(config)))) {
    if (name !== "connectionScaling") refuse(`\`${name}\` of a service config`);
  }
}

function refuse(what: string): never {
  throw new PoolTypeError(
    `dialGrpcHttp2 does not do what ${what} asks for: take dialGrpc, which runs on grpc-js' own channels`,
  );
}
