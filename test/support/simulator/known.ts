/**
 * Defects that are known and not mended yet. While one stands here, the simulator does not do what shows it. Delete
 * the line when it is mended: the simulator then does it in every run.
 */
const knownDefects: Readonly<Record<string, string>> = {
  agedMeanwhile: "a maxLifetimeMs getter that closes or takes its conn leaves the timer of the conn's lifetime armed",
  undialedWarm:
    "a warm that has no dial function, called from a callback while its key is being served, never settles where the conn that was there goes meanwhile",
  warmsCompete:
    "a warm that finds the places of maxConns taken by other keys' idle conns, or by another warm's, waits for ever: it evicts none, and does not resolve with as many as the limits allow",
};

export function isKnown(defect: string): boolean {
  return Object.hasOwn(knownDefects, defect);
}
