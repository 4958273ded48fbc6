export { FakeClock, settle } from "../../src/testing/clock.ts";

/** Lets so many turns of the event loop pass, with the I/O that is ready in each. */
export async function turns(count = 5): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** For so many turns `until` looks in each; after that it sleeps in between, so that others have the processor. */
const eagerTurns = 2000;

/**
 * Resolves in the turn of the event loop in which `condition` holds; fails after `ms`, 5 s by default, with `what` was
 * waited for.
 */
export async function until(condition: () => boolean, what: string, ms = 5000): Promise<void> {
  const deadline = performance.now() + ms;
  for (let turn = 0; !condition(); turn++) {
    if (performance.now() > deadline) throw new Error(`waited ${ms} ms: ${what}`);
    await new Promise((resolve) => (turn < eagerTurns ? setImmediate(resolve) : setTimeout(resolve, 2)));
  }
}
