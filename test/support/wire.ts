import { Duplex } from "node:stream";
import {
  DrpcConn,
  type DrpcConnOptions,
  encodePackets,
  Kind,
  type Packet,
  PacketReader,
  type Uint64,
} from "../../src/drpc/index.ts";

/** A packet, with the rest filled in. */
export function packet(
  kind: keyof typeof Kind | number,
  stream: Uint64,
  message: Uint64,
  data: string | Uint8Array = "",
) {
  return {
    kind: typeof kind === "number" ? kind : Kind[kind],
    stream,
    message,
    control: false,
    data: typeof data === "string" ? Buffer.from(data) : data,
  } satisfies Packet;
}

/** The bytes of packets. */
export function wire(...packets: Packet[]): Buffer {
  return Buffer.concat(encodePackets(packets, 0));
}

/** The packets in bytes, short: `kind stream/message data`. */
export function unwire(...chunks: Buffer[]): string[] {
  const packets: string[] = [];
  const names = new Map<number, string>(Object.entries(Kind).map(([name, kind]) => [kind, name]));
  const reader = new PacketReader(0, ({ kind, stream, message, control, data }) => {
    const name = `${names.get(kind) ?? kind}${control ? "!" : ""}`;
    packets.push(`${name} ${stream}/${message}${data.length > 0 ? ` ${data.toString()}` : ""}`);
  });
  for (const chunk of chunks) reader.push(chunk);
  return packets;
}

/** A duplex whose far end is driven by hand. As a socket, it takes several buffers in one write. */
class Near extends Duplex {
  readonly #far: Far;

  constructor(far: Far, highWaterMark: number) {
    super({ highWaterMark });
    this.#far = far;
  }

  override _read(): void {
    this.#far.onRead();
  }

  override _write(chunk: Buffer, _: BufferEncoding, callback: () => void): void {
    this.#far.onWrite(chunk, callback);
  }

  override _writev(chunks: { chunk: Buffer }[], callback: () => void): void {
    this.#far.onWrite(Buffer.concat(chunks.map(({ chunk }) => chunk)), callback);
  }
}

/** The far end of a connection in memory. */
export class Far {
  /** What the tested end gets. */
  readonly near: Duplex;
  /** What came, by socket write. */
  readonly chunks: Buffer[] = [];
  #deaf: boolean;
  #stuck: (() => void) | undefined;
  #wake: () => void = () => {};
  #room: () => void = () => {};

  /** `deaf`: what is written is not taken until `listen`. */
  constructor({ deaf = false, highWaterMark = 16 * 1024 } = {}) {
    this.#deaf = deaf;
    this.near = new Near(this, highWaterMark);
  }

  listen(): void {
    this.#deaf = false;
    this.#stuck?.();
  }

  get packets(): string[] {
    return unwire(...this.chunks);
  }

  /** Waits until so many packets have come, and returns them. */
  async got(count: number): Promise<string[]> {
    while (this.packets.length < count) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.packets;
  }

  /** False: the near end has enough for now; `room` tells when it wants more. */
  send(...packets: Packet[]): boolean {
    return this.near.push(wire(...packets));
  }

  async room(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#room = resolve;
    });
  }

  end(): void {
    this.near.push(null);
  }

  onRead(): void {
    this.#room();
  }

  onWrite(chunk: Buffer, callback: () => void): void {
    this.chunks.push(chunk);
    this.#wake();
    if (this.#deaf) this.#stuck = callback;
    else callback();
  }
}

/** Waits for what only sockets of idle conns will bring, which do not keep the process alive. */
export async function holding<T>(promise: PromiseLike<T>): Promise<T> {
  const timer = setInterval(() => {}, 1000);
  try {
    return await promise;
  } finally {
    clearInterval(timer);
  }
}

/** A conn whose far end is driven by hand. */
export function connect(options?: DrpcConnOptions, far: Far = new Far()): { far: Far; conn: DrpcConn } {
  return { far, conn: new DrpcConn(far.near, options) };
}
