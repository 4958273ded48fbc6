/**
 * Unary calls per second over DRPC: our client and the Go client, each against the Go server, same machine, same run.
 *
 *   npm run compile --silent && node .build/test/bench/drpc.js [seconds]
 */
import { type DrpcConn, dialDrpc } from "../../src/drpc/index.ts";
import { GoPeer, noGo } from "../interop/gopeer.ts";
import { peer } from "../support/peer.ts";

const seconds = Number(process.argv[2] ?? 3);
const dial = dialDrpc();

async function ours(address: string, n: number): Promise<number> {
  const { signal } = new AbortController();
  const conns = await Promise.all(Array.from({ length: n }, async () => await dial(address, { signal })));
  const request = Buffer.alloc(64, "x");
  let calls = 0;
  const start = performance.now();
  const end = start + seconds * 1000;
  const run = async (conn: DrpcConn): Promise<void> => {
    for (; performance.now() < end; calls++) await conn.invoke(peer.echo, request);
  };
  await Promise.all(conns.map(run));
  const rate = calls / ((performance.now() - start) / 1000);
  await Promise.all(conns.map((conn) => conn.close()));
  return rate;
}

if (noGo !== false) {
  console.log(noGo);
} else {
  const go = new GoPeer();
  const { plain } = await go.serve();
  await ours(plain, 1); // warm
  console.log("conns   ours calls/s   Go client calls/s");
  for (const n of [1, 10, 100]) {
    const js = await ours(plain, n);
    const golang = Number(await go.run("bench", plain, String(n), String(seconds)));
    console.log(String(n).padStart(5), js.toFixed(0).padStart(14), golang.toFixed(0).padStart(19));
  }
  go[Symbol.dispose]();
}
