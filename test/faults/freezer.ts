import { setTimeout as sleep } from "node:timers/promises";
import { type TransportName, transports, wordOf } from "../support/faults/transports.ts";

// A process of the scenarios that can be stopped and continued: a server, or a client under load.
const [role, name, address = ""] = process.argv.slice(2);
const { serve, client: makeClient } = transports[name as TransportName]; // the scenarios know the names

if (role === "server") {
  const { port } = await serve();
  process.send?.(port);
} else {
  const client = makeClient();
  const calls: { at: number; ms: number; word: string }[] = [];
  const one = async (): Promise<void> => {
    const at = Date.now();
    const start = performance.now();
    const word = await client.echo(address, `${at}`, { timeoutMs: 500 }).then(() => "", wordOf);
    calls.push({ at, ms: performance.now() - start, word });
  };
  process.on("message", () => process.send?.({ calls, silent: client.pool.stats().closed.silent }));
  process.send?.("ready");
  for (;;) {
    void one();
    await sleep(20);
  }
}
