import type { ClientHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { ChannelCredentials, type ChannelInterface } from "@grpc/grpc-js";

type CreateConnector = ChannelCredentials["_createSecureConnector"];

type Listener = (...args: unknown[]) => void;

/** One connection of a channel. */
interface Connection {
  readonly socket: Socket;
  /** What grpc-js speaks HTTP/2 with, once it does. */
  session: ClientHttp2Session | undefined;
  /** Listeners by which Node itself learns what to tell of the session. */
  nodesOwn: readonly Listener[];
}

/**
 * The caller's credentials, with an eye on sockets: they behave as before, and know the connections that one channel has
 * open, and what came over them.
 *
 * grpc-js shows neither its sockets nor its HTTP/2 sessions, and a conn needs both. A channel that is closed while it
 * connects leaves its socket open for as long as the peer stays silent, and one that is closed later waits for the
 * peer's FIN for ever: a pool that dials such a peer again and again would run out of sockets. And only the session
 * knows how many streams the peer allows. The connector of the credentials is the one place where grpc-js lets its
 * sockets be seen (grpc-js-xds extends the same methods).
 */
export class SocketTracking extends ChannelCredentials {
  readonly #inner: ChannelCredentials;
  readonly #connections = new Set<Connection>();
  #readBefore = 0;
  #closed = false;
  #destroyed = false;

  constructor(inner: ChannelCredentials) {
    super();
    this.#inner = inner;
  }

  override _isSecure(): boolean {
    return this.#inner._isSecure();
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(...args: Parameters<CreateConnector>): ReturnType<CreateConnector> {
    const inner = this.#inner._createSecureConnector(...args);
    return {
      connect: async (socket) => {
        const connection = this.#track(socket);
        const result = await inner.connect(socket);
        // grpc-js makes its session as soon as it has the result, and no byte can come before that.
        process.nextTick(() => meet(connection, result.socket));
        return result;
      },
      waitForReady: () => (this.#closed ? new Promise(() => {}) : inner.waitForReady()),
      getCallCredentials: () => inner.getCallCredentials(),
      destroy: () => inner.destroy(),
    };
  }

  /** The credentials as the caller gave them. */
  get original(): ChannelCredentials {
    return this.#inner;
  }

  /** How many sockets are open. */
  get open(): number {
    let open = 0;
    for (const { socket } of this.#connections) if (!socket.destroyed) open++;
    return open;
  }

  /** Bytes that have come over all connections so far, TLS included. */
  get bytesRead(): number {
    let bytes = this.#readBefore;
    for (const { socket } of this.#connections) bytes += socket.bytesRead;
    return bytes;
  }

  /**
   * The session of the one connection that is up; `undefined` where there are several, or where Node hides it. Of a
   * channel that is READY: until then grpc-js takes all listeners off it, Node's own among them. Without those, nobody
   * would hear of new SETTINGS: they are put back.
   */
  session(): ClientHttp2Session | undefined {
    const [connection, ...others] = [...this.#connections].filter(
      ({ socket, session }) => !socket.destroyed && session?.destroyed === false,
    );
    if (connection?.session === undefined || others.length > 0) return undefined;
    const { session, nodesOwn } = connection;
    const left = session.listeners("newListener");
    for (const listener of nodesOwn) if (!left.includes(listener)) session.on("newListener", listener);
    return session;
  }

  /**
   * Closes the channel that has these credentials, for good. What grpc-js has put off to the next turns of the event loop (the
   * addresses of a peer, a call's wish to connect) reaches a channel that is closed by then, too, and opens it again: it
   * would connect to the peer, over and over, for as long as the process lives. So nothing connects any more, and the channel
   * is closed once more behind all that.
   *
   * @see https://github.com/grpc/grpc-node/blob/%40grpc/grpc-js%401.14.0/packages/grpc-js/src/resolver-dns.ts (`startResolution`)
   */
  close(channel: ChannelInterface): void {
    this.#closed = true;
    channel.close();
    // A call asks at the end of this turn, and the addresses come in the turn after that.
    setImmediate(() => setImmediate(() => channel.close()));
  }

  /** Destroys every socket that is open, and from now on each that still connects. */
  destroySockets(): void {
    this.#destroyed = true;
    for (const { socket } of this.#connections) socket.destroy();
  }

  #track(socket: Socket): Connection {
    const connection: Connection = { socket, session: undefined, nodesOwn: [] };
    this.#connections.add(connection);
    socket.once("close", () => {
      this.#connections.delete(connection);
      this.#readBefore += socket.bytesRead;
    });
    if (this.#destroyed) socket.destroy();
    return connection;
  }
}

/** Looks for the session that grpc-js has made on `socket`, the connection's own or the TLS socket around that. */
function meet(connection: Connection, socket: object): void {
  const session = sessionOn(socket);
  connection.session = session;
  // Typed as functions of nothing in particular, which listeners are.
  if (session !== undefined) connection.nodesOwn = session.listeners("newListener") as Listener[];
}

/**
 * The HTTP/2 session that runs on a socket. Where a session is given its socket by `createConnection`, as grpc-js does,
 * Node leaves the session among the socket's own properties: undocumented, under a name that is a slip ("undefined"),
 * the same on Node 20 to 26. So it is known by what it can do; where there is none, a conn does without.
 */
function sessionOn(socket: object): ClientHttp2Session | undefined {
  for (const name of Reflect.ownKeys(socket)) {
    const value: unknown = Reflect.getOwnPropertyDescriptor(socket, name)?.value;
    if (isSession(value)) return value;
  }
  return undefined;
}

function isSession(value: unknown): value is ClientHttp2Session {
  return (
    typeof value === "object" &&
    value !== null &&
    "ping" in value &&
    typeof value.ping === "function" &&
    "remoteSettings" in value &&
    typeof value.remoteSettings === "object"
  );
}
