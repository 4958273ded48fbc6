/**
 * Defects that are known and not fixed yet. While one is listed here, the simulator avoids what shows it. Delete
 * the line when the defect is fixed: every run then does it.
 */
const knownDefects: Readonly<Record<string, string>> = {
  agedMeanwhile: "a maxLifetimeMs getter that closes or takes its conn leaves the timer of the conn's lifetime armed",
  countedLate:
    "bytesRead is read between the choice of a conn and the counting of its stream: a getter that takes a lease gets the same slot",
  warmsCompete:
    "a warm that finds the places of maxConns taken by other keys' idle conns, or by another warm's, waits for ever: it evicts none, and does not resolve with as many as the limits allow",
};

export function isKnown(defect: string): boolean {
  return Object.hasOwn(knownDefects, defect);
}
