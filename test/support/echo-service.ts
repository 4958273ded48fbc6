import type { EventEmitter } from "node:events";
import { createServer, type Server as NetServer, type Socket } from "node:net";
import {
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerOptions,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type sendUnaryData,
  type status,
} from "@grpc/grpc-js";

export interface Ask {
  readonly text: string;
  /** The call fails with this status, after the messages that it has. */
  readonly fail?: status;
  /** `fail` only at the first attempt; grpc-js tells the server of those before. */
  readonly failFirst?: boolean;
  /** How many answers a stream gives. Default: 1. */
  readonly count?: number;
  /** Milliseconds before the answer; -1: it never comes. */
  readonly delayMs?: number;
}

export interface Answer {
  readonly text: string;
}

function json<T>(): { serialize: (value: T) => Buffer; deserialize: (bytes: Buffer) => T } {
  return {
    serialize: (value) => Buffer.from(JSON.stringify(value)),
    deserialize: (bytes) => JSON.parse(bytes.toString()),
  };
}

function method<Q extends boolean, S extends boolean>(
  name: string,
  requestStream: Q,
  responseStream: S,
): MethodDefinition<Ask, Answer> & { requestStream: Q; responseStream: S } {
  const path = `/test.Echo/${name}`;
  const { serialize: requestSerialize, deserialize: requestDeserialize } = json<Ask>();
  const { serialize: responseSerialize, deserialize: responseDeserialize } = json<Answer>();
  const codecs = { requestSerialize, requestDeserialize, responseSerialize, responseDeserialize };
  return { path, requestStream, responseStream, ...codecs };
}

/** One method of each of the four kinds. The server sends `x-` metadata back: in the header, and in the trailer. */
export const echoService = {
  unary: method("Unary", false, false),
  collect: method("Collect", true, false),
  repeat: method("Repeat", false, true),
  chat: method("Chat", true, true),
};

/** A real grpc-js server, of JSON unless `service` says otherwise, whose sockets a test can count and cut. */
export interface EchoServer extends AsyncDisposable {
  readonly address: string;
  readonly port: number;
  readonly server: Server;
  readonly sockets: ReadonlySet<Socket>;
  /** Calls that are running now. */
  running: number;
  /** Calls that the client has cancelled. */
  cancelled: number;
  /** Calls that reached a handler. */
  handled: number;
}

type AnyCall =
  | ServerUnaryCall<Ask, Answer>
  | ServerReadableStream<Ask, Answer>
  | ServerWritableStream<Ask, Answer>
  | ServerDuplexStream<Ask, Answer>;

export async function startEcho(
  credentials: ServerCredentials = ServerCredentials.createInsecure(),
  options: ServerOptions = {},
  service: ServiceDefinition = echoService,
): Promise<EchoServer> {
  const server = new Server(options);
  const sockets = new Set<Socket>();
  const injector = server.createConnectionInjector(credentials);
  const listener: NetServer = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => {});
    injector.injectConnection(socket);
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const address = listener.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const echo: EchoServer = {
    address: `127.0.0.1:${address.port}`,
    port: address.port,
    server,
    sockets,
    running: 0,
    cancelled: 0,
    handled: 0,
    async [Symbol.asyncDispose]() {
      server.forceShutdown();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
    },
  };
  server.addService(service, handlers(echo));
  return echo;
}

function handlers(echo: EchoServer) {
  function begin(call: AnyCall): void {
    echo.handled++;
    echo.running++;
    let over = false;
    const end = (): void => {
      if (!over) echo.running--;
      over = true;
    };
    const events: EventEmitter = call;
    events.on("cancelled", () => {
      echo.cancelled++;
      end();
    });
    ended.set(call, end);
    const header = new Metadata();
    for (const [key, values] of Object.entries(call.metadata.toJSON())) {
      if (key.startsWith("x-")) for (const value of values) header.add(key, value);
    }
    if (Object.keys(header.getMap()).length > 0) call.sendMetadata(header);
  }
  const ended = new WeakMap<AnyCall, () => void>();
  function trailer(call: AnyCall): Metadata {
    const metadata = new Metadata();
    metadata.set("x-trailer", "end");
    for (const value of call.metadata.get("x-bytes-bin")) metadata.add("x-trailer-bin", value);
    return metadata;
  }
  function finish(call: AnyCall, ask: Ask, done: () => void): void {
    if (ask.delayMs === -1) return;
    const end = (): void => {
      ended.get(call)?.();
      done();
    };
    if (ask.delayMs === undefined) end();
    else setTimeout(end, ask.delayMs);
  }
  function reply(call: AnyCall, ask: Ask, answer: Answer, callback: sendUnaryData<Answer>): void {
    finish(call, ask, () => {
      const metadata = trailer(call);
      if (ask.fail === undefined) callback(null, answer, metadata);
      else callback({ code: ask.fail, details: `failed: ${ask.text}`, metadata });
    });
  }
  function close(call: ServerWritableStream<Ask, Answer> | ServerDuplexStream<Ask, Answer>, ask: Ask): void {
    finish(call, ask, () => {
      if (ask.fail === undefined) call.end(trailer(call));
      else call.emit("error", { code: ask.fail, details: `failed: ${ask.text}`, metadata: trailer(call) });
    });
  }
  return {
    unary(call: ServerUnaryCall<Ask, Answer>, callback: sendUnaryData<Answer>): void {
      begin(call);
      const { fail: _fail, ...healthy } = call.request;
      const again = call.metadata.get("grpc-previous-rpc-attempts").length > 0;
      const ask = healthy.failFirst && again ? healthy : call.request;
      reply(call, ask, { text: ask.text }, callback);
    },
    collect(call: ServerReadableStream<Ask, Answer>, callback: sendUnaryData<Answer>): void {
      begin(call);
      const all: Ask[] = [];
      call.on("data", (ask: Ask) => all.push(ask));
      call.on("error", () => {});
      call.on("end", () => {
        const text = all.map((ask) => ask.text).join(" ");
        reply(call, { ...all.at(-1), text }, { text }, callback);
      });
    },
    repeat(call: ServerWritableStream<Ask, Answer>): void {
      begin(call);
      call.on("error", () => {});
      const { count = 1, text } = call.request;
      let sent = 0;
      const more = (): void => {
        while (sent < count && !call.cancelled) if (!call.write({ text: `${text}${sent++}` })) break;
        if (sent < count) call.once("drain", more);
        else close(call, call.request);
      };
      more();
    },
    chat(call: ServerDuplexStream<Ask, Answer>): void {
      begin(call);
      call.on("error", () => {});
      let last: Ask = { text: "" };
      call.on("data", (ask: Ask) => {
        last = ask;
        call.write({ text: ask.text });
        if (ask.fail !== undefined) close(call, ask);
      });
      call.on("end", () => close(call, { ...last }));
    },
  };
}
