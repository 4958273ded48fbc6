/**
 * Defects that are known and not mended yet. While one stands here, the simulator does not do what shows it. Delete
 * the line when it is mended: the simulator then does it in every run.
 */
const knownDefects: Readonly<Record<string, string>> = {
  sharedSignal:
    "warm and a waiter that share a signal: the abort serves the key while its queue is being emptied; `waiting` goes wrong, others hang beside an idle conn",
  throwingSlots:
    "a maxStreams getter that throws while slots are read again rejects the caller's promise and leaves its waiter queued, which later swallows a slot",
  nullUnblocked: "unblocked() that returns null makes the pool look for a free conn for ever",
  selfReplacingListener: "a listener that takes itself off and on again is called for ever",
  unprintableFault: "a listener that throws an object without prototype crashes the process",
  warmAborts: "warm never settles when `limits` or `hashKey` aborts its signal",
  storms: "without backoff, failed dials that the pool repeats by itself are repeated at every turn of the event loop",
  throwingTags: "stats(key) throws when a `tags` getter does",
  agedMeanwhile: "a maxLifetimeMs getter that closes or takes its conn leaves the timer of the conn's lifetime armed",
  undialedWarm:
    "a warm that has no dial function, called from a callback while its key is being served, never settles where the conn that was there goes meanwhile",
  warmsCompete:
    "a warm that finds the places of maxConns taken by other keys' idle conns, or by another warm's, waits for ever: it evicts none, and does not resolve with as many as the limits allow",
};

export function isKnown(defect: string): boolean {
  return Object.hasOwn(knownDefects, defect);
}
