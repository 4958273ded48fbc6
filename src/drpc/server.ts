import { once } from "node:events";
import { type AddressInfo, createServer, isIPv6, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer as createTlsServer, type TlsOptions } from "node:tls";
import { checkFunction, checkOptions, checkString, checkTime, show } from "../argument.ts";
import { PoolClosedError, PoolTypeError } from "../errors.ts";
import { longestDelayMs } from "../runtime/clock.ts";
import { outcome } from "../runtime/guard.ts";
import { type DrpcLimits, delayOf, headerOf, limitNames, limitsOf, sizeOf } from "./limits.ts";
import {
  type DrpcHandlers,
  type DrpcMethod,
  type DrpcService,
  type ServedMethod,
  ServerConn,
  type ServerConnSettings,
} from "./server-conn.ts";
import { checkDuplex } from "./transport.ts";

/** Options of a `DrpcServer`. All are optional; unknown names are refused. */
export interface DrpcServerOptions extends DrpcLimits {
  /**
   * Milliseconds that a client may let pass without the request of an RPC, from the connection's beginning and from
   * each RPC's end; then its connection is closed. Default 0: for ever, as in Go. Negative: refused.
   */
  inactivityTimeoutMs?: number | undefined;
  /**
   * Milliseconds that a request may take to come, from its first byte until its handler can run: a frame, the `header`
   * of a shared port, the one request of an RPC; also for a TLS handshake, unless `handshakeTimeout` of `tls` says
   * otherwise. Then its connection is closed. What comes while the handler runs is the handler's to wait for. Default
   * 60,000. 0: for ever. Negative: refused.
   */
  requestTimeoutMs?: number | undefined;
  /**
   * Connections at once; more are closed as they come. In a TLS handshake they count for the place that the server
   * listens in, unless that has an `otherwise`. Default 0: no limit. Negative: refused.
   */
  maxConns?: number | undefined;
  /**
   * Told what no caller can be told: errors of a connection or of a handshake, of clients that break the protocol.
   * What handlers throw goes to their clients instead. What it throws itself becomes a warning of the process. Default:
   * nobody is told.
   */
  onError?: ((error: unknown) => void) | undefined;
}

/** Where and how a `DrpcServer` listens. Unknown names are refused. */
export interface DrpcListenOptions {
  /** TCP port; 0: any that is free. Default 0. */
  port?: number | undefined;
  /** Address to bind to. Default: all of them. */
  host?: string | undefined;
  /** Path of a unix socket, instead of `port` and `host`. */
  path?: string | undefined;
  /** TLS, with these options of Node's `tls.createServer`. Default: no TLS. */
  tls?: TlsOptions | undefined;
  /**
   * DRPC clients say this first; connections that begin otherwise go to `otherwise`, or are closed. `true`: `DRPC!!!1`,
   * as Go's drpcmigrate has it. Default: none, and every connection is DRPC.
   */
  header?: boolean | string | undefined;
  /**
   * Takes connections that do not begin with `header`, as they came: `(socket) => httpServer.emit("connection", socket)`
   * shares the port with HTTP. The server does not close them. Default: they are closed.
   */
  otherwise?: ((socket: Socket) => void) | undefined;
}

const serverOptionNames = ["inactivityTimeoutMs", "requestTimeoutMs", "maxConns", "onError"];

/** As Go's net.ListenConfig. */
const KEEP_ALIVE_MS = 15_000;

/**
 * Serves DRPC by service definitions that grpc-js has too, on TCP, TLS, unix sockets or duplexes that are open already.
 * Each connection runs one handler at a time; what one client does wrong ends its own connection only.
 */
export class DrpcServer implements AsyncDisposable {
  readonly #settings: ServerConnSettings;
  readonly #maxConns: number;
  readonly #onError: (error: unknown) => void;
  readonly #methods = new Map<string, ServedMethod>();
  readonly #listeners = new Set<Server>();
  /** Connections, also while it is not known yet what they speak. */
  readonly #conns = new Map<Duplex, ServerConn | undefined>();
  #closed = false;

  /** @throws PoolTypeError or PoolRangeError for wrong options. */
  constructor(options: DrpcServerOptions = {}) {
    checkOptions("DrpcServer's options", options, [...limitNames, ...serverOptionNames]);
    this.#settings = {
      ...limitsOf(options),
      inactivityTimeoutMs: delayOf("inactivityTimeoutMs", options.inactivityTimeoutMs, 0),
      requestTimeoutMs: delayOf("requestTimeoutMs", options.requestTimeoutMs, 60_000),
      header: "",
    };
    this.#maxConns = sizeOf("maxConns", options.maxConns, 0);
    checkFunction("onError", options.onError);
    const { onError } = options;
    this.#onError = (error) => {
      if (onError !== undefined) tell(onError, error);
    };
  }

  /**
   * Serves the RPCs of `service`. A service that is added again is replaced.
   *
   * @throws PoolTypeError for what is no method, and for a method without a handler. What every object inherits
   * (`toString`) is no handler.
   */
  add<S extends DrpcService<S>>(service: S, handlers: DrpcHandlers<S>): this {
    checkObject("service", service);
    checkObject("handlers", handlers);
    for (const [name, method] of Object.entries<DrpcMethod<unknown, unknown>>(service)) {
      checkMethod(name, method);
      const handler: unknown = Reflect.get(handlers, name);
      if (typeof handler !== "function" || handler === Reflect.get(Object.prototype, name)) {
        throw new PoolTypeError(`expected a handler for \`${name}\`, a function, got ${show(handler)}`);
      }
      const handle = (...args: unknown[]): unknown => Reflect.apply(handler, handlers, args);
      this.#methods.set(method.path, { method, handle });
    }
    return this;
  }

  /**
   * Listens; resolves with the key under which `dialDrpc` reaches it: `127.0.0.1:40001`, `[::1]:40001`, `unix:/path`.
   * A server may listen in several places.
   *
   * @throws PoolTypeError or PoolRangeError for wrong options, PoolClosedError after `close`; Node's error when it
   * cannot listen there.
   */
  async listen(options: DrpcListenOptions = {}): Promise<string> {
    checkOptions("listen's options", options, ["port", "host", "path", "tls", "header", "otherwise"]);
    const { port = 0, host, path, tls, otherwise } = options;
    const header = headerOf(options.header);
    checkFunction("otherwise", otherwise);
    if (otherwise !== undefined && header === "") throw new PoolTypeError("`otherwise` needs `header`");
    if (this.#closed) throw new PoolClosedError("the server is closed");
    const accept = (socket: Socket): void => {
      if (header === "") this.serve(socket);
      else void this.#sort(socket, header, otherwise);
    };
    const tcp = { noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS };
    const handshakeTimeout = this.#settings.requestTimeoutMs;
    const listener =
      tls === undefined ? createServer(tcp, accept) : createTlsServer({ ...tcp, handshakeTimeout, ...tls }, accept);
    // Connections that somebody else takes over do not count, and Node counts those too.
    if (this.#maxConns > 0 && otherwise === undefined) listener.maxConnections = this.#maxConns;
    listener.on("tlsClientError", (error: Error, socket: Socket) => {
      socket.destroy(); // Node leaves a connection open whose handshake took too long
      this.#onError(error);
    });
    listener.listen(path === undefined ? { port, host } : { path });
    this.#listeners.add(listener);
    try {
      await once(listener, "listening");
    } catch (error) {
      this.#listeners.delete(listener);
      throw error;
    }
    listener.on("error", this.#onError);
    const address = listener.address();
    if (address === null) throw new PoolClosedError("the server was closed while it began to listen");
    return keyOf(address);
  }

  /**
   * Serves a connection that is open. It is the server's from now on.
   *
   * @throws PoolTypeError for anything but a duplex of bytes.
   */
  serve(duplex: Duplex): void {
    checkDuplex(duplex);
    if (!this.#admit(duplex)) return;
    try {
      this.#conns.set(duplex, new ServerConn(duplex, this.#settings, this.#methods, this.#onError));
    } catch (error) {
      this.#conns.delete(duplex); // nothing has begun on it: it is still its owner's
      throw error;
    }
  }

  /**
   * Closes the server: it listens no more, connections without an RPC are closed, RPCs may finish and their clients
   * read the replies, and after `graceMs` the rest is cut, with the handlers' signals aborted. Default 30,000. 0: at
   * once. `Infinity`: nothing is cut. Negative: refused. Handlers that ignore their signal are not waited for.
   * Idempotent: a second call can shorten the first one's grace.
   */
  async close(options: { graceMs?: number | undefined } = {}): Promise<void> {
    checkOptions("close's options", options, ["graceMs"]);
    const { graceMs = 30_000 } = options;
    const cuts = graceMs !== Number.POSITIVE_INFINITY;
    if (cuts) checkTime("graceMs", graceMs);
    this.#closed = true;
    for (const listener of this.#listeners) listener.close();
    this.#listeners.clear();
    const closed = [...this.#conns.keys()].map((duplex) => new Promise((resolve) => duplex.once("close", resolve)));
    for (const [duplex, conn] of this.#conns) {
      if (conn === undefined) duplex.destroy();
      else if (graceMs > 0) conn.drain();
    }
    if (graceMs === 0) this.#cut();
    const timer = cuts && graceMs > 0 ? setTimeout(() => this.#cut(), Math.min(graceMs, longestDelayMs)) : undefined;
    await Promise.all(closed);
    clearTimeout(timer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #cut(): void {
    for (const conn of this.#conns.values()) conn?.destroy(new PoolClosedError("the server was closed"));
  }

  /** Gives a connection to whom its first bytes name. */
  async #sort(socket: Socket, header: string, otherwise: ((socket: Socket) => void) | undefined): Promise<void> {
    if (!this.#admit(socket)) return;
    socket.on("error", this.#onError);
    const ours = await startsWith(socket, header, this.#settings);
    socket.off("error", this.#onError);
    this.#conns.delete(socket);
    if (ours === true) {
      this.serve(socket);
    } else if (ours === false && otherwise !== undefined && !this.#closed) {
      const failed = await outcome(() => otherwise(socket));
      if (failed === undefined) return;
      socket.on("error", () => {}).destroy();
      this.#onError(failed.error);
    } else {
      socket.on("error", () => {}).destroy();
    }
  }

  /** Counts a connection until it closes, or closes it at once. */
  #admit(duplex: Duplex): boolean {
    if (this.#closed || (this.#maxConns > 0 && this.#conns.size >= this.#maxConns)) {
      duplex.destroy();
      return false;
    }
    this.#conns.set(duplex, undefined);
    duplex.once("close", () => this.#conns.delete(duplex));
    return true;
  }
}

function checkObject(what: string, value: unknown): void {
  if (typeof value !== "object" || value === null) {
    throw new PoolTypeError(`expected ${what} to be an object, got ${show(value)}`);
  }
}

function checkMethod(name: string, method: DrpcMethod<unknown, unknown>): void {
  checkObject(`the method \`${name}\``, method);
  checkString(`${name}.path`, method.path ?? null);
  for (const part of ["requestDeserialize", "responseSerialize"]) {
    checkFunction(`${name}.${part}`, Reflect.get(method, part) ?? null);
  }
}

function keyOf(address: AddressInfo | string): string {
  if (typeof address === "string") return `unix:${address}`;
  return `${isIPv6(address.address) ? `[${address.address}]` : address.address}:${address.port}`;
}

/** Calls a listener of the user's, which may throw or be async. */
function tell(listener: (error: unknown) => unknown, error: unknown): void {
  void outcome(() => listener(error)).then((failed) => {
    if (failed !== undefined) process.emitWarning(failed.error instanceof Error ? failed.error : show(failed.error));
  });
}

/**
 * Reads whether a connection begins with `header`, and takes that away; anything else it puts back. `undefined`: the
 * connection has ended before it said so much, or has taken too long.
 */
function startsWith(
  socket: Socket,
  header: string,
  { inactivityTimeoutMs, requestTimeoutMs }: ServerConnSettings,
): Promise<boolean | undefined> {
  return new Promise((resolve) => {
    let timer: NodeJS.Timeout | undefined;
    const expect = (ms: number): void => {
      clearTimeout(timer);
      timer = ms > 0 ? setTimeout(ended, ms).unref() : undefined;
    };
    const done = (answer: boolean | undefined): void => {
      clearTimeout(timer);
      socket.off("readable", read).off("end", ended).off("close", ended);
      resolve(answer);
    };
    const ended = (): void => done(undefined);
    let begun = false;
    const read = (): void => {
      if (!begun && socket.readableLength > 0) {
        begun = true;
        expect(requestTimeoutMs);
      }
      const bytes: Buffer | null = socket.read(header.length);
      if (bytes === null) return;
      const matches = bytes.toString("latin1") === header;
      if (!matches) socket.unshift(bytes);
      done(matches);
    };
    expect(inactivityTimeoutMs);
    socket.on("readable", read).on("end", ended).on("close", ended);
    read();
  });
}
