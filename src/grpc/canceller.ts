/** Those whose signals nobody watches and nothing has aborted: to make one costs Node more than the rest of a wait. */
const spare: AbortController[] = [];
const mostSpare = 1_000;

/** An abort controller for something that is rarely aborted. */
export function takeCanceller(): AbortController {
  return spare.pop() ?? new AbortController();
}

/** Nobody else may hold it, or its signal. */
export function giveBackCanceller(canceller: AbortController): void {
  if (!canceller.signal.aborted && spare.length < mostSpare) spare.push(canceller);
}
