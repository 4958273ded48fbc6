// Workers that dial in: the pool adopts their sockets, and callers choose among them by tags.
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { NoMatchError, Pool, type SocketConn, socketConn } from "rpc-conn-pool";

const pool = new Pool<string, SocketConn>();
const hub = createServer((socket) => {
  socket.once("data", (hello: Buffer) => {
    const [, zone] = hello.toString().split(" "); // "zone b"
    pool.put("workers", socketConn(socket, { tags: { zone } }));
  });
});
hub.listen(0, "127.0.0.1");
await once(hub, "listening");
const { port } = hub.address() as AddressInfo;

for (const zone of ["a", "b", "b"]) {
  const worker = connect(port, "127.0.0.1", () => worker.write(`zone ${zone}`));
  worker.on("data", (job: Buffer) => worker.write(`${job.toString()} done in zone ${zone}`));
}
while (pool.stats("workers").idle < 3) await new Promise((resolve) => setTimeout(resolve, 5));

function work(job: string, zone: string): Promise<string> {
  const run = async ({ socket }: SocketConn) => {
    socket.write(job);
    const [answer] = await once(socket, "data");
    return String(answer);
  };
  return pool.use("workers", run, { filter: (_conn, { tags }) => tags?.["zone"] === zone });
}

console.log(await Promise.all([work("job 1", "b"), work("job 2", "a"), work("job 3", "b")]));
await work("job 4", "c").catch((error) => console.log(error instanceof NoMatchError, error.heldBackBy?.text));
console.log(pool.stats("workers").conns?.map(({ uses }) => uses));
await pool.close();
hub.close();

// [
//   'job 1 done in zone b',
//   'job 2 done in zone a',
//   'job 3 done in zone b'
// ]
// true filter: none of the 3 conns passes it
// [ 1, 1, 1 ]
