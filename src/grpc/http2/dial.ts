import type { Socket } from "node:net";
import {
  type CallCredentials,
  type ChannelCredentials,
  type ChannelOptions,
  credentials as grpcCredentials,
  status,
} from "@grpc/grpc-js";
import { checkAtLeastOne, checkOptions } from "../../argument.ts";
import type { Dial } from "../../contract.ts";
import { PoolTypeError } from "../../errors.ts";
import type { Address } from "../../net/address.ts";
import { connectSocket, type DialLimits, raceDial } from "../../net/dial.ts";
import type { Http2Conn } from "../../net/http2.ts";
import { openHttp2 } from "../../net/http2-dial.ts";
import type { GrpcDialOptions } from "../dial.ts";
import { GrpcError } from "../status.ts";
import { GrpcHttp2Conn } from "./conn.ts";
import { readOptions, type TransportOptions } from "./options.ts";
import { proxyFor, tunnel } from "./proxy.ts";
import { parseTarget, type Target } from "./target.ts";

type SecureConnector = ReturnType<ChannelCredentials["_createSecureConnector"]>;

const none = grpcCredentials.createEmpty();

/**
 * A dial function for gRPC peers, straight on `node:http2` instead of grpc-js' channels: faster, with the peer's stream
 * limit as it is and follows, GOAWAY's code, and pings. The keys and the credentials are those of `dialGrpc`.
 *
 * It takes the channel options that grpc-js' connections have (names, keep-alive, message sizes, compression, the
 * flow-control window, which is 1 MiB for a stream and 16 MiB for all together unless `grpc-node.flow_control_window`
 * says otherwise), and goes through the proxy that the environment names (`grpc_proxy`, `https_proxy`, `http_proxy`, but for
 * `no_grpc_proxy` or `no_proxy`), unless `grpc.enable_http_proxy` is 0. What only grpc-js' channel does (retries and load balancing by service config, xDS, channelz) is refused.
 *
 * What a peer can send is bounded by Node (header blocks: 128 fields, a few CONTINUATION frames) and by the options above. A header
 * block without end makes Node itself abort the process when it collects the session; these conns keep it from that.
 *
 * It resolves when the peer's settings have come, and rejects with a `GrpcError` that names the cause, or with the
 * signal's reason; for a key that is no target, with a `PoolTypeError` or `PoolRangeError` that is `final`.
 *
 * @throws PoolTypeError or PoolRangeError for wrong arguments, at once.
 */
export function dialGrpcHttp2(
  credentials: ChannelCredentials,
  channelOptions: ChannelOptions = {},
  options: GrpcDialOptions = {},
): Dial<string, GrpcHttp2Conn> {
  if (!(typeof credentials === "object" && credentials !== null && "_createSecureConnector" in credentials)) {
    throw new PoolTypeError(
      "expected ChannelCredentials of grpc-js 1.14 or newer, such as credentials.createInsecure()",
    );
  }
  checkOptions("the options of dialGrpcHttp2", options, ["maxStreams"]);
  const { maxStreams } = options;
  checkAtLeastOne("maxStreams", maxStreams);
  const transport = readOptions(channelOptions);
  const dial = async (key: string, { signal }: { signal: AbortSignal }): Promise<GrpcHttp2Conn> => {
    const target = parseTarget(key);
    signal.throwIfAborted();
    const authority = transport.authority ?? target.authority;
    let callCredentials: CallCredentials | undefined;
    const open = async (signal: AbortSignal, timeoutMs?: number): Promise<Http2Conn> => {
      const connector = credentials._createSecureConnector(target.uri, channelOptions);
      try {
        callCredentials = connector.getCallCredentials();
        return await connect(target, connector, { key, signal, timeoutMs, authority, maxStreams, options: transport });
      } finally {
        connector.destroy();
      }
    };
    const session = await open(signal);
    const { userAgent, maxSendBytes, maxReceiveBytes, encoding } = transport;
    return new GrpcHttp2Conn(session, {
      settings: {
        scheme: credentials._isSecure() ? "https" : "http",
        authority,
        userAgent,
        peer: peerOf(session.socket, target),
        maxSendBytes,
        maxReceiveBytes,
        callCredentials: callCredentials === undefined || none._equals(callCredentials) ? undefined : callCredentials,
      },
      credentials,
      encoding,
      keepalive: transport,
      redial: (signal) => open(signal, redialTimeoutMs),
    });
  };
  return Object.assign(dial, { maxStreams });
}

/** No pool looks after these dials. */
const redialTimeoutMs = 20_000;

interface ConnectOptions extends DialLimits {
  readonly authority: string;
  readonly maxStreams: number | undefined;
  readonly options: TransportOptions;
}

/** Opens a session with the first address that answers. */
async function connect(target: Target, connector: SecureConnector, options: ConnectOptions): Promise<Http2Conn> {
  const { signal } = options;
  let failure: unknown;
  for (const address of target.addresses) {
    try {
      return await openSession(address, connector, options);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      failure = error;
    }
  }
  // grpc-js' words.
  const unnamed = Object(failure).syscall === "getaddrinfo";
  const details = unnamed
    ? `Name resolution failed for target ${target.uri.scheme}:${target.uri.path}`
    : `No connection established. Last error: ${String(failure)}`;
  throw new GrpcError(status.UNAVAILABLE, details, undefined, { cause: failure });
}

/** Node connects, the credentials secure, and HTTP/2 begins on what they made of the socket. */
function openSession(address: Address, connector: SecureConnector, options: ConnectOptions): Promise<Http2Conn> {
  const { key, signal, timeoutMs, authority, maxStreams, options: transport } = options;
  const proxy = transport.proxies ? proxyFor(address, process.env) : undefined;
  const tcp = connectSocket(
    proxy === undefined ? address : { host: proxy.hostname, port: Number(proxy.port || 80) },
    {},
  );
  return raceDial(tcp, { key, signal, timeoutMs }, ({ done, failed }) => {
    const secure = async (): Promise<Http2Conn> => {
      if (proxy !== undefined && "host" in address) await tunnel(tcp, proxy, address.host, address.port);
      await connector.waitForReady();
      const { socket, secure } = await connector.connect(tcp);
      const conn = await openHttp2(socket, {
        key,
        signal,
        authority: `${secure ? "https" : "http"}://${authority}`,
        maxStreams,
        session: {
          settings: { initialWindowSize: transport.streamWindow },
          maxSendHeaderBlockLength: Number.MAX_SAFE_INTEGER,
          maxSessionMemory: transport.maxSessionMemory,
        },
      });
      conn.session.setLocalWindowSize(transport.sessionWindow);
      return conn;
    };
    tcp.once("connect", () => void secure().then(done, failed));
  });
}

function peerOf({ remoteAddress, remotePort }: Socket, { uri, authority }: Target): string {
  if (uri.scheme === "unix") return uri.path;
  if (remoteAddress === undefined) return authority;
  return remoteAddress.includes(":") ? `[${remoteAddress}]:${remotePort}` : `${remoteAddress}:${remotePort}`;
}
