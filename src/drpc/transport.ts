import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { show } from "../argument.ts";
import { PoolTypeError } from "../errors.ts";
import type { Limits } from "./limits.ts";
import { encodePackets, type Packet, PacketReader, type ReceivedPacket } from "./wire.ts";

/** What a transport tells its conn. */
export interface TransportEvents {
  /** What this throws ends the transport, as its cause. */
  onPacket(packet: ReceivedPacket): void;
  /** All packets of a read have been given to `onPacket`. */
  onRead?(): void;
  /** The duplex takes bytes again. */
  onRoom(): void;
  /** The duplex is dead: called once, unless `destroy` came first. `cause` is its error, where there is one. */
  onDeath(cause: unknown): void;
}

/** Why nothing is read for now. The duplex flows while there is no reason against it. */
export const Hold = { queue: 1, replies: 2 } as const;
export type Hold = (typeof Hold)[keyof typeof Hold];

export interface TransportOptions extends Limits {
  /** Written in front of the first bytes. */
  readonly header: string;
}

/**
 * Turns of the event loop that a duplex which hands on later may take before what it has not handed on speaks against
 * it: TLS reports each write a turn later, and the next one waits for that.
 */
const FLUSH_TURNS = 2;

const NOTHING = Buffer.alloc(0);

/** Packets over a duplex: one socket write for what is written together, and a pause that stops the peer. */
export class Transport {
  readonly duplex: Duplex;
  readonly #events: TransportEvents;
  readonly #splitBytes: number;
  readonly #reader: PacketReader;
  #header: string;
  #holds = 0;
  #corked = false;
  #dead = false;
  #bytesRead = 0;
  /** A TCP or Unix socket writes at once all that the system takes. */
  readonly #writesAtOnce: boolean;
  /** How many turns are left to what was written last, on a duplex that hands on later. */
  #flushTurns = 0;

  constructor(duplex: Duplex, events: TransportEvents, options: TransportOptions) {
    checkDuplex(duplex);
    if (duplex.readableObjectMode || duplex.writableObjectMode || duplex.readableEncoding !== null) {
      throw new PoolTypeError("expected a duplex of bytes, got one of objects or strings");
    }
    this.duplex = duplex;
    this.#writesAtOnce = duplex instanceof Socket && !(duplex instanceof TLSSocket);
    this.#events = events;
    this.#splitBytes = options.splitBytes;
    this.#header = options.header;
    this.#reader = new PacketReader(options.maxPacketBytes, (packet) => {
      if (!this.#dead) events.onPacket(packet);
    });
    duplex.on("data", this.#onData);
    duplex.on("drain", () => events.onRoom());
    duplex.on("end", () => this.#die(undefined));
    duplex.on("close", () => this.#die(undefined));
    // Stays when the transport is dead: an error nobody listens to would end the process.
    duplex.on("error", (error) => this.#die(error));
    duplex.resume(); // it may come paused
    if (duplex.destroyed || !duplex.readable || !duplex.writable) queueMicrotask(() => this.#die(duplex.errored));
  }

  get dead(): boolean {
    return this.#dead;
  }

  /** Whether bytes can still be written. */
  get writable(): boolean {
    return !this.#dead && this.duplex.writable;
  }

  /** Whether what was written has left for the system. */
  get flushed(): boolean {
    return this.duplex.writableLength === 0;
  }

  /** Whether what was written does not leave, so that whatever follows would wait behind it. */
  get stuck(): boolean {
    return !this.flushed && (this.full || this.#flushTurns === 0);
  }

  /** Whether a packet from the peer has begun to come. */
  get partial(): boolean {
    return this.#reader.partial;
  }

  /** Whether a frame from the peer is half in. */
  get midFrame(): boolean {
    return this.#reader.midFrame;
  }

  /** Grows with every byte from the peer. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** Whether a sender had better wait for `onRoom`. */
  get full(): boolean {
    return this.duplex.writableNeedDrain;
  }

  /** Writes packets at once, together with what waits for the tick's end. */
  write(packets: readonly Packet[]): void {
    this.#push(packets);
    this.#uncork();
  }

  /** Writes packets at the end of the tick: what one tick sends goes in one socket write. */
  writeSoon(packets: readonly Packet[]): void {
    if (!this.#corked) {
      this.#corked = true;
      this.duplex.cork();
      process.nextTick(() => this.#uncork());
    }
    this.#push(packets);
  }

  /** Calls back when all that has been written so far has left, or the duplex is dead. */
  whenFlushed(callback: () => void): void {
    this.duplex.write(NOTHING, callback);
  }

  hold(reason: Hold): void {
    if (this.#holds === 0) this.duplex.pause();
    this.#holds |= reason;
  }

  /** Withdraws a reason not to read. */
  allow(reason: Hold): void {
    if (this.#holds === 0) return;
    this.#holds &= ~reason;
    if (this.#holds === 0) this.duplex.resume();
  }

  /** Says whether this transport keeps the process alive. A duplex that is no socket does not anyway. */
  keepAlive(alive: boolean): void {
    const { duplex } = this;
    if (alive && "ref" in duplex && typeof duplex.ref === "function") duplex.ref();
    if (!alive && "unref" in duplex && typeof duplex.unref === "function") duplex.unref();
  }

  /** Sends what is written, then the end, then destroys. */
  end(): void {
    this.#dead = true;
    this.duplex.end(() => this.duplex.destroy());
    this.duplex.resume(); // a FIN that nobody reads would leave the duplex half-open
  }

  destroy(): void {
    this.#dead = true;
    this.duplex.destroy();
  }

  /** Writes a copy: what the packets carry is its sender's again at once, however slowly the peer reads. */
  #push(packets: readonly Packet[]): void {
    const buffers = encodePackets(packets, this.#splitBytes);
    if (this.#header !== "") {
      buffers.unshift(Buffer.from(this.#header, "latin1"));
      this.#header = "";
    }
    const [first] = buffers;
    if (!this.#writesAtOnce && this.flushed) this.#startFlush();
    try {
      this.duplex.write(buffers.length === 1 ? first : Buffer.concat(buffers));
    } catch (error) {
      this.#die(error); // a duplex of somebody else's may throw
    }
  }

  #startFlush(): void {
    if (this.#flushTurns === 0) setImmediate(this.#onTurn);
    this.#flushTurns = FLUSH_TURNS;
  }

  readonly #onTurn = (): void => {
    this.#flushTurns = this.flushed ? 0 : this.#flushTurns - 1;
    if (this.#flushTurns > 0) setImmediate(this.#onTurn);
  };

  #uncork(): void {
    if (!this.#corked) return;
    this.#corked = false;
    this.duplex.uncork();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#bytesRead += chunk.length;
    if (this.#dead) return;
    try {
      this.#reader.push(chunk);
      if (!this.#dead) this.#events.onRead?.();
    } catch (error) {
      this.#die(error);
    }
  };

  #die(cause: unknown): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#events.onDeath(cause);
    this.duplex.destroy();
  }
}

/** @throws PoolTypeError for what is no stream of Node's. */
export function checkDuplex(duplex: unknown): void {
  if (typeof duplex === "object" && duplex !== null && "destroy" in duplex && "write" in duplex && "on" in duplex)
    return;
  throw new PoolTypeError(`expected a duplex, got ${show(duplex)}`);
}
