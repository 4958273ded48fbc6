// The same calls to the same servers in three ways: a dial per call, one grpc-js channel per server, and the pool.
import { writeFileSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { type Contestant, dialPerCall, oneChannel, pooled } from "./contestants.ts";
import { Fleet } from "./fleet.ts";
import { plot } from "./plot.ts";
import * as progress from "./progress.ts";
import { serverMs, streamLimit } from "./service.ts";
import { svg } from "./svg.ts";
import { table } from "./table.ts";
import { concurrency, type Result, requestBytes, run } from "./workload.ts";

/** How long each is measured; the whole takes about six times as long. */
const measuredMs = Number(process.argv[2] ?? 2_000);

console.log("The same calls in three ways: a dial per call, one channel per server, and the pool.\n");
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

const picture = fileURLToPath(new URL("../../main-job.svg", import.meta.url)); // in .build, which git ignores
writeFileSync(picture, svg(results));
console.log(`\n${plot(results)}\n\n${table(results)}\n`);
console.log(
  "dials and open at peak: connections as the servers counted them, over all servers, warm-up included.\n" +
    `One channel is one connection, so ${streamLimit} of its calls run and the rest wait in line; a dial per call pays\n` +
    "for a connection each time; the pool opens another connection when those it has are full, and keeps them.",
);
console.log(`\nThe plot as a picture: ${relative("", picture)}`);
