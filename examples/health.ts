// A health check for a protocol of one's own: PING before a socket is used again that was idle for long.
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { dialSocket, Pool, type SocketConn } from "rpc-conn-pool";

let healthy = true;
let pings = 0;
const server = createServer((socket) => {
  const mine = healthy; // a peer whose state of this connection is lost, later
  socket.on("data", (line) => {
    if (String(line) !== "PING\n") return void socket.write("hello\n");
    pings++;
    socket.write(mine === healthy ? "PONG\n" : "ERROR\n");
  });
}).listen(0, "127.0.0.1");
await once(server, "listening");
const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;

async function ask({ socket }: SocketConn, line: string, signal: AbortSignal): Promise<string> {
  socket.write(`${line}\n`);
  const [answer] = await once(socket, "data", { signal });
  return String(answer).trim();
}

const pool = new Pool({
  dial: dialSocket(),
  validate: async (conn, { signal }) => (await ask(conn, "PING", signal)) === "PONG",
  validateAfterMs: 0, // in earnest: 30_000, so that busy sockets are not asked
  dialTimeoutMs: 2_000, // no answer by then is no health; the signal aborts
});
const hello = () =>
  pool.use(address, (conn) => ask(conn, "HELLO", AbortSignal.timeout(2_000)), { discardOnError: true });

console.log(await hello(), await hello(), `${pings} ping, ${pool.stats().dials} dial`);
healthy = false;
console.log(await hello(), `${pings} pings, ${pool.stats().dials} dials, ${pool.stats().closed.invalid} invalid`);
await pool.close();
server.close();

// hello hello 1 ping, 1 dial
// hello 2 pings, 2 dials, 1 invalid
