import type { Duplex } from "node:stream";
import { ConnClosedError } from "../errors.ts";
import { DrpcCode, DrpcError, DrpcProtocolError } from "./error.ts";
import { Kind } from "./frame.ts";
import { decodeMetadata } from "./metadata.ts";
import type { ReceivedPacket } from "./packet.ts";
import type { DrpcContext, ServedMethod } from "./service.ts";
import { Task, type TaskOwner } from "./task.ts";
import { Hold, Transport, type TransportOptions, type TransportOwner } from "./transport.ts";
import type { Uint64 } from "./uint64.ts";

export interface SessionSettings extends TransportOptions {
  readonly highWaterBytes: number;
  readonly inactivityTimeoutMs: number;
}

/**
 * One client's connection at the server. One handler runs at a time, as in Go: a client that begins an RPC while
 * another one runs cancels that, and the new one waits until the old handler has settled, so that no client can pile
 * up handlers.
 */
export class Session implements TransportOwner, TaskOwner {
  readonly #transport: Transport;
  readonly #settings: SessionSettings;
  readonly #methods: ReadonlyMap<string, ServedMethod>;
  readonly #onError: (error: unknown) => void;
  /** The newest RPC. It may have ended. */
  #task: Task | undefined;
  /** The newest stream that an invoke or its metadata came for. */
  #stream: Uint64 = 0;
  #metadata: DrpcContext["metadata"] | undefined;
  #handling = false;
  #draining = false;
  #inactivity: NodeJS.Timeout | undefined;

  /** @param onError hears why the connection died, where there was an error. */
  constructor(
    duplex: Duplex,
    settings: SessionSettings,
    methods: ReadonlyMap<string, ServedMethod>,
    onError: (error: unknown) => void,
  ) {
    this.#settings = settings;
    this.#methods = methods;
    this.#onError = onError;
    this.#transport = new Transport(duplex, this, settings);
    this.#expectInvoke();
  }

  /** Closes the connection as soon as no RPC runs on it. */
  drain(): void {
    this.#draining = true;
    if (!this.#handling && !this.#task?.pending) this.#end();
  }

  /** Closes the connection at once. */
  destroy(error: Error): void {
    clearTimeout(this.#inactivity);
    this.#transport.destroy();
    this.#cancel(error);
  }

  onPacket(packet: ReceivedPacket): void {
    const { stream, kind } = packet;
    if (stream === this.#task?.exchange.stream) {
      // Go's clients close an RPC that they do not read to its end: no handler must take that for the last message.
      if (kind === Kind.close) this.#cancel(cancelled());
      else this.#task.exchange.receive(packet);
    } else if (kind === Kind.invoke || kind === Kind.invokeMetadata) {
      // The reader lets no stream come back, so this is a new one; metadata ends the old one too, as in Go.
      this.#cancel(cancelled());
      if (stream !== this.#stream) this.#metadata = undefined;
      this.#stream = stream;
      if (kind === Kind.invokeMetadata) this.#metadata = decodeMetadata(packet.data);
      else this.#invoke(stream, packet.data.toString());
    } else if (!packet.control) {
      throw new DrpcProtocolError(`a packet of stream ${stream}, which was not invoked`);
    }
  }

  onRoom(): void {
    this.#transport.allow(Hold.replies);
    this.#task?.exchange.onRoom();
  }

  onDeath(cause: unknown): void {
    clearTimeout(this.#inactivity);
    const message = cause instanceof Error ? cause.message : "the client closed the connection";
    this.#cancel(new ConnClosedError("died", true, message, { cause }));
    if (cause !== undefined && cause !== null) this.#onError(cause);
  }

  onReady(): void {
    if (!this.#handling) void this.#run();
  }

  onTaskEnd(): void {
    if (this.#draining && !this.#handling) this.#end();
  }

  #invoke(stream: Uint64, path: string): void {
    const served = this.#methods.get(path) ?? unimplemented(path);
    const metadata = this.#metadata ?? Object.freeze(Object.create(null));
    this.#task = new Task(stream, served, metadata, this.#transport, this.#settings.highWaterBytes, this);
    this.#expectInvoke(); // its request is still to come
    if (this.#task.ready) this.onReady();
  }

  /** Runs the newest RPC, and the one that has become the newest meanwhile. */
  async #run(): Promise<void> {
    this.#handling = true;
    clearTimeout(this.#inactivity);
    while (this.#task?.ready) await this.#task.run();
    this.#handling = false;
    if (this.#transport.dead) return;
    if (this.#draining && !this.#task?.pending) {
      this.#end();
      return;
    }
    // Who does not read its replies gets no further RPC, so that they cannot pile up here.
    if (this.#transport.full) this.#transport.hold(Hold.replies);
    this.#expectInvoke();
  }

  #cancel(error: Error): void {
    this.#task?.exchange.abandon({ error, local: true });
  }

  #expectInvoke(): void {
    const { inactivityTimeoutMs } = this.#settings;
    if (inactivityTimeoutMs === 0 || this.#handling) return;
    clearTimeout(this.#inactivity);
    this.#inactivity = setTimeout(() => {
      this.destroy(new DrpcError(`the client was inactive for ${inactivityTimeoutMs} ms`));
    }, inactivityTimeoutMs).unref();
  }

  #end(): void {
    clearTimeout(this.#inactivity);
    this.#transport.end();
  }
}

function cancelled(): DrpcError {
  return new DrpcError("the client cancelled the RPC", DrpcCode.cancelled);
}

function unimplemented(path: string): ServedMethod {
  return {
    method: {
      path,
      requestStream: true,
      responseStream: false,
      requestDeserialize: (bytes) => bytes,
      responseSerialize: () => Buffer.alloc(0),
    },
    handle: () => {
      throw new DrpcError(`unknown RPC ${JSON.stringify(path.slice(0, 200))}`, DrpcCode.unimplemented);
    },
  };
}
