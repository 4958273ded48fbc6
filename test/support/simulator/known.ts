/**
 * Defects that are known and not mended yet. While one stands here, the simulator does not do what shows it. Delete
 * the line when it is mended: the simulator then does it in every run.
 */
const knownDefects: Readonly<Record<string, string>> = {
  turnToDial:
    "maxDials with maxConns: a key whose turn to dial has come, while maxConns has no place, is served without end; the process freezes (found-frozen.test.ts)",
  warmsCompete:
    "a warm that finds the places of maxConns taken by other keys' idle conns, or by another warm's, waits for ever: it evicts none, and does not resolve with as many as the limits allow",
};

export function isKnown(defect: string): boolean {
  return Object.hasOwn(knownDefects, defect);
}
