// The same calls to the same servers in three ways: a dial per call, one grpc-js channel per server, and the pool.
import { type Contestant, dialPerCall, oneChannel, pooled } from "./contestants.ts";
import { Fleet } from "./fleet.ts";
import * as progress from "./progress.ts";
import { serverMs, streamLimit } from "./service.ts";
import { table } from "./table.ts";
import { concurrency, type Result, requestBytes, run } from "./workload.ts";

/** How long each is measured; the whole takes about six times as long. */
const measuredMs = Number(process.argv[2] ?? 2_000);

await using fleet = await Fleet.start();
const encrypted = fleet.peers.filter(({ tls }) => tls).length;
console.log(
  `${fleet.peers.length} gRPC servers in a process of their own, ${encrypted} with TLS. Each allows ${streamLimit} calls at\n` +
    `once per connection and takes ${serverMs} ms per call. ${concurrency} callers, one call each at a time, ${requestBytes} bytes.\n`,
);

const contestants: readonly (() => Contestant)[] = [dialPerCall, () => oneChannel(fleet.peers), pooled];
const results: Result[] = [];
for (const enter of contestants) {
  const contestant = enter();
  const result = await run(contestant, fleet, measuredMs, progress.begin(contestant.name));
  progress.end();
  results.push(result);
}

console.log(`\n${table(results)}\n`);
console.log(
  "dials and open at peak: connections as the servers counted them, over all servers, warm-up included.\n" +
    `One channel is one connection, so ${streamLimit} of its calls run and the rest wait in line; a dial per call pays\n` +
    "for a connection each time; the pool opens another connection when those it has are full, and keeps them.",
);
