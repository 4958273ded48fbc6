// starpc: a pool over its connections, here Yamux on TCP. Many calls share a connection; its generated clients run on what is leased.
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { dialSocket, Pool, type PoolConn } from "rpc-conn-pool";
import { type Client, createHandler, createMux, Server, StreamConn } from "starpc";
import { EchoerClient, EchoerDefinition, EchoerServer } from "starpc/echo";

/** Runs starpc over a socket, for as long as that is open. */
function run(conn: StreamConn, socket: Socket): void {
  const chunks = async function* () {
    for await (const chunk of conn.source) yield chunk.subarray();
  };
  const received = async function* (): AsyncGenerator<Uint8Array> {
    yield* socket;
  };
  const ended = () => socket.destroy();
  pipeline(chunks, socket).then(ended, ended);
  Promise.resolve(conn.sink(received())).then(ended, ended);
}

/** A starpc connection as a pool holds it. */
class StarpcConn implements PoolConn {
  readonly maxStreams = 100;
  readonly closed: Promise<unknown>;
  readonly client: Client;
  readonly #socket: Socket;

  constructor(socket: Socket) {
    const conn = new StreamConn(undefined, { direction: "outbound" });
    this.client = conn.buildClient();
    this.#socket = socket.on("error", () => {}); // it closes next
    this.closed = new Promise((resolve) => socket.once("close", resolve));
    run(conn, socket);
  }
  get draining(): boolean {
    return this.#socket.destroyed || this.#socket.readableEnded;
  }
  get bytesRead(): number {
    return this.#socket.bytesRead;
  }
  close(): Promise<unknown> {
    this.#socket.destroy();
    return this.closed;
  }
}

const mux = createMux();
const server = new Server(mux.lookupMethod);
mux.register(createHandler(EchoerDefinition, new EchoerServer(server)));
const listener = createServer((socket) =>
  run(
    new StreamConn(server, { direction: "inbound" }),
    socket.on("error", () => {}),
  ),
);
await once(listener.listen(0, "127.0.0.1"), "listening");
const address = `127.0.0.1:${(listener.address() as AddressInfo).port}`;

const dialTcp = dialSocket();
const dial = async (key: string, options: { signal: AbortSignal }) =>
  new StarpcConn((await dialTcp(key, options)).socket);
const pool = new Pool<string, StarpcConn>({ dial, maxKeyConns: 4 });
const echo = (body: string) =>
  pool.use(address, async ({ client }) => (await new EchoerClient(client).Echo({ body })).body, { timeoutMs: 10_000 });

const answers = await Promise.all(Array.from({ length: 250 }, (_, i) => echo(`call ${i}`)));
console.log(`${answers.at(-1)}; ${pool.stats().open} connections`);
await pool.close();
listener.close();

// call 249; 3 connections
