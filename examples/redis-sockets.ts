// Redis's protocol over pooled sockets: one command at a time on each, with a deadline, and no socket dialed in vain.
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { createInterface } from "node:readline";
import { dialSocket, Pool, type SocketConn } from "rpc-conn-pool";

// A server that knows SET, GET and INCR, as inline commands: https://redis.io/docs/latest/develop/reference/protocol-spec/
const store = new Map<string, string>();
let accepted = 0;
const server = createServer((socket) => {
  accepted++;
  createInterface(socket).on("line", (line) => {
    const [command, key = "", value = ""] = line.split(" ");
    if (command === "SET") socket.write(store.set(key, value) && "+OK\r\n");
    else if (command === "INCR") socket.write(`:${store.set(key, `${Number(store.get(key) ?? 0) + 1}`).get(key)}\r\n`);
    else if (command === "GET") socket.write(`$${store.get(key)?.length ?? -1}\r\n${store.get(key) ?? ""}\r\n`);
    else socket.write(`-ERR unknown command '${command}'\r\n`);
  });
}).listen(0, "127.0.0.1");
await once(server, "listening");
const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;

const pool = new Pool<string, SocketConn>({ dial: dialSocket(), maxKeyConns: 4, expirationMs: 60_000 });

async function command({ socket }: SocketConn, line: string): Promise<string> {
  socket.write(`${line}\r\n`);
  const [answer] = await once(socket, "data", { signal: AbortSignal.timeout(2000) });
  const [, kind, text] = /^([+:-]|\$\d+\r\n)(.*)\r\n$/s.exec(String(answer)) ?? [];
  if (kind === undefined || text === undefined) throw new Error(`not Redis: ${answer}`);
  return kind === "-" ? `refused: ${text}` : text;
}

/** Runs a command; a socket whose answer did not come, or said more than it should, is not used again. */
const redis = (line: string) =>
  pool.use(address, (conn) => command(conn, line), { timeoutMs: 2000, discardOnError: true });

console.log(await redis("SET greeting hello"), await redis("GET greeting"), await redis("FLY"));
await Promise.all(Array.from({ length: 100 }, () => redis("INCR hits")));
console.log(`${await redis("GET hits")} hits over ${accepted} sockets, ${pool.stats().dials} dials`);
await pool.close();
server.close();

// OK hello refused: ERR unknown command 'FLY'
// 100 hits over 4 sockets, 4 dials
