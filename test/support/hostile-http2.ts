import { type AddressInfo, createServer, type Server, type Socket } from "node:net";

/** Frame types: https://www.rfc-editor.org/rfc/rfc9113#section-6 */
export const FrameType = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

/** Error codes: https://www.rfc-editor.org/rfc/rfc9113#section-7 */
export const ErrorCode = {
  noError: 0,
  protocolError: 1,
  internalError: 2,
  flowControlError: 3,
  streamClosed: 5,
  refusedStream: 7,
  cancel: 8,
  enhanceYourCalm: 11,
} as const;

const Flag = { endStream: 1, ack: 1, endHeaders: 4, padded: 8 } as const;

/** Parameters of SETTINGS: https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2 */
const settingIds = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const;

export type Settings = { readonly [name in keyof typeof settingIds]?: number };

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const empty = Buffer.alloc(0);

/** The bytes of one frame. Nothing is checked: what is malformed is sent as it is. */
export function frameBytes(type: number, flags: number, stream: number, payload: Uint8Array = empty): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** HPACK without compression: literals that enter no table. https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2 */
export function headerBlock(headers: Readonly<Record<string, string>>): Buffer {
  const parts = Object.entries(headers).flatMap(([name, value]) => [Buffer.from([0]), literal(name), literal(value)]);
  return Buffer.concat(parts);
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest >>>= 7) length.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([...length, rest]), bytes]);
}

/** What a peer does by itself. */
export interface Manners {
  /** The settings that it begins with; `undefined`: it never sends any. Default: none but an empty frame. */
  readonly settings?: Settings | undefined;
  /** Default true. False: it ignores PINGs. */
  readonly answersPings?: boolean;
}

/** One connection of a client, at the server's end: everything that comes is a frame, everything that is sent too. */
export class HostileConn {
  readonly socket: Socket;
  /** All frames that have come, in order. */
  readonly frames: Frame[] = [];
  /** Streams that the client has opened and that neither side has ended yet. */
  readonly open = new Set<number>();
  /** The most streams that were open at once. */
  mostOpen = 0;
  /** How many streams the client has opened. */
  requests = 0;
  /** PINGs of this side that the client has answered. */
  pongs = 0;
  /** Called when a client's stream is complete: its last frame said so. */
  onRequest: (stream: number) => void = () => {};
  /** Called when a client opens a stream. */
  onHeaders: (stream: number) => void = () => {};
  /** Called when the client resets a stream. */
  onReset: (stream: number, code: number) => void = () => {};
  readonly #manners: Manners;
  #rest: Buffer = empty;
  #prefaced = false;
  #hasGreeted = false;

  constructor(socket: Socket, manners: Manners) {
    this.socket = socket;
    this.#manners = manners;
    socket.setNoDelay(true).on("error", () => {});
    socket.on("data", (chunk) => this.#read(chunk));
    socket.on("end", () => socket.end());
    const { settings = {} } = manners;
    if (!("settings" in manners) || manners.settings !== undefined) this.settings(settings);
  }

  settings(settings: Settings): this {
    this.#hasGreeted = true;
    const payload = Object.entries(settingIds).flatMap(([name, id]) => {
      const value = settings[name as keyof Settings]; // its own keys
      if (value === undefined) return [];
      const entry = Buffer.alloc(6);
      entry.writeUInt16BE(id, 0);
      entry.writeUInt32BE(value, 2);
      return [entry];
    });
    return this.frame(FrameType.settings, 0, 0, Buffer.concat(payload));
  }

  headers(stream: number, headers: Readonly<Record<string, string>>, { end = false } = {}): this {
    const flags = Flag.endHeaders | (end ? Flag.endStream : 0);
    this.frame(FrameType.headers, flags, stream, headerBlock(headers));
    if (end) this.open.delete(stream);
    return this;
  }

  /** `padding`: so many bytes of it, 0 to 255; `undefined`: the frame is not padded at all. */
  data(stream: number, data: Uint8Array, { end = false, padding = undefined as number | undefined } = {}): this {
    const flags = (end ? Flag.endStream : 0) | (padding === undefined ? 0 : Flag.padded);
    const parts = padding === undefined ? [data] : [Buffer.from([padding]), data, Buffer.alloc(padding)];
    this.frame(FrameType.data, flags, stream, Buffer.concat(parts));
    if (end) this.open.delete(stream);
    return this;
  }

  rst(stream: number, code: number): this {
    this.open.delete(stream);
    return this.frame(FrameType.rstStream, 0, stream, uint32(code));
  }

  goaway(lastStream: number, code: number = ErrorCode.noError, data = ""): this {
    const payload = Buffer.concat([uint32(lastStream), uint32(code), Buffer.from(data)]);
    return this.frame(FrameType.goaway, 0, 0, payload);
  }

  ping(payload: Uint8Array = Buffer.alloc(8)): this {
    return this.frame(FrameType.ping, 0, 0, payload);
  }

  windowUpdate(stream: number, bytes: number): this {
    return this.frame(FrameType.windowUpdate, 0, stream, uint32(bytes));
  }

  frame(type: number, flags: number, stream: number, payload: Uint8Array = empty): this {
    return this.raw(frameBytes(type, flags, stream, payload));
  }

  raw(bytes: Uint8Array): this {
    if (this.socket.writable) this.socket.write(bytes);
    return this;
  }

  /** What `act` sends leaves in one piece. */
  together(act: () => void): this {
    this.socket.cork();
    act();
    this.socket.uncork();
    return this;
  }

  /** Answers a gRPC call: headers, these messages in one DATA frame each, and the status. Default: an empty message. */
  respond(stream: number, messages: readonly string[] = [""], status = 0, padding?: number): this {
    return this.together(() => {
      this.headers(stream, responseHeaders);
      for (const message of messages) this.data(stream, grpcMessage(message), { padding });
      this.headers(stream, { "grpc-status": String(status) }, { end: true });
    });
  }

  #read(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    if (!this.#prefaced) {
      if (this.#rest.length < preface.length) return;
      this.#prefaced = true;
      this.#rest = this.#rest.subarray(preface.length);
    }
    for (;;) {
      if (this.#rest.length < 9) return;
      const length = this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < 9 + length) return;
      const frame: Frame = {
        type: this.#rest.readUInt8(3),
        flags: this.#rest.readUInt8(4),
        stream: this.#rest.readUInt32BE(5) & 0x7f_ff_ff_ff,
        payload: this.#rest.subarray(9, 9 + length),
      };
      this.#rest = this.#rest.subarray(9 + length);
      this.frames.push(frame);
      this.#take(frame);
    }
  }

  #take({ type, flags, stream, payload }: Frame): void {
    // An acknowledgement in front of its own settings would be a protocol error.
    if (type === FrameType.settings && !(flags & Flag.ack) && this.#hasGreeted)
      this.frame(FrameType.settings, Flag.ack, 0);
    if (type === FrameType.ping) {
      if (flags & Flag.ack) this.pongs++;
      else if (this.#manners.answersPings !== false) this.frame(FrameType.ping, Flag.ack, 0, payload);
    }
    if (type === FrameType.data && payload.length > 0) {
      this.windowUpdate(0, payload.length);
      if (!(flags & Flag.endStream)) this.windowUpdate(stream, payload.length);
    }
    if (type === FrameType.headers) {
      this.requests++;
      this.open.add(stream);
      this.mostOpen = Math.max(this.mostOpen, this.open.size);
      this.onHeaders(stream);
    }
    // A client that saw a connection error waits for the server to hang up, as servers do.
    if (type === FrameType.goaway && payload.readUInt32BE(4) !== ErrorCode.noError) this.socket.end();
    if (type === FrameType.rstStream) {
      this.open.delete(stream);
      this.onReset(stream, payload.readUInt32BE(0));
    }
    if ((type === FrameType.headers || type === FrameType.data) && flags & Flag.endStream) this.onRequest(stream);
  }
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** What a gRPC server's response begins with. */
export const responseHeaders: Readonly<Record<string, string>> = {
  ":status": "200",
  "content-type": "application/grpc+proto",
};

/** A message in gRPC's frame: not compressed, and its length. */
export function grpcMessage(text: string | Uint8Array): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([0]), uint32(bytes.length), bytes]);
}

/** An HTTP/2 server on a bare socket, for what no well-behaved server does. `serve` gets each connection as it comes. */
export class HostileHttp2 implements AsyncDisposable {
  readonly conns: HostileConn[] = [];
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(serve: (conn: HostileConn, index: number) => void, manners: Manners = {}): Promise<HostileHttp2> {
    const server = createServer({ allowHalfOpen: true });
    const hostile = new HostileHttp2(server);
    server.on("connection", (socket) => {
      const conn = new HostileConn(socket, manners);
      serve(conn, hostile.conns.push(conn) - 1);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return hostile;
  }

  /** `host:port`. */
  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`; // it listens on TCP
  }

  get url(): string {
    return `http://${this.address}`;
  }

  /** How many streams clients have opened, on all connections. */
  get requests(): number {
    return this.conns.reduce((sum, { requests }) => sum + requests, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { socket } of this.conns) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
