// A transport of one's own: numbered lines over TCP, ten calls at once per connection.
import { EventEmitter, once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { type Conn, ConnClosedError, Pool, type Rpc, type Stream } from "rpc-conn-pool";

class LineConn implements Conn {
  readonly maxStreams = 10;
  readonly closed: Promise<unknown>;
  readonly #socket: Socket;
  readonly #answers = new EventEmitter().setMaxListeners(0).on("error", () => {});
  #last = 0;

  constructor(socket: Socket) {
    this.#socket = socket.on("error", () => {}); // it closes next
    this.closed = new Promise((resolve) => socket.once("close", resolve)); // before the calls that die with it
    socket.once("close", () => this.#answers.emit("error", new ConnClosedError("died", true)));
    createInterface(socket).on("line", (line) => this.#answers.emit(...(line.split(" ", 2) as [string, string])));
  }
  async invoke<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>): Promise<O> {
    const answer = once(this.#answers, `${++this.#last}`);
    this.#socket.write(`${this.#last} ${Buffer.from(rpc.requestSerialize(request)).toString("hex")}\n`);
    return rpc.responseDeserialize(Buffer.from((await answer)[0], "hex"));
  }
  newStream<I, O>(): Promise<Stream<I, O>> {
    return Promise.reject(new Error("lines carry unary calls only"));
  }
  unblocked(): undefined {}
  async close(): Promise<void> {
    this.#socket.destroy();
  }
}

const server = createServer((socket) => void socket.pipe(socket)); // the same lines back
await once(server.listen(0, "127.0.0.1"), "listening");
const { port } = server.address() as AddressInfo;

const dial = async (key: number, { signal }: { signal: AbortSignal }) => {
  const socket = connect({ host: "127.0.0.1", port: key, signal });
  await once(socket, "connect", { signal });
  return new LineConn(socket);
};
const pool = new Pool({ dial: Object.assign(dial, { maxStreams: 10 }) }); // known beforehand: three dials at once
const echo = { path: "/echo", requestSerialize: (text: string) => Buffer.from(text), responseDeserialize: String };
const calls = Array.from({ length: 25 }, (_, i) => pool.get(port).invoke(echo, `hello ${i}`));
console.log((await Promise.all(calls)).at(-1), `${pool.stats().dials} dials`);
await pool.close();
server.close();

// hello 24 3 dials
