/** Told once when the signal that it watches aborts. */
export interface AbortWatcher {
  onAbort(reason: unknown): void;
  /** All watchers of the signal have been told: what follows from it may begin. */
  afterAbort?(): void;
}

/** All watchers of one signal, behind one listener. */
class Watchers {
  readonly all = new Set<AbortWatcher>();

  handleEvent(event: Event): void {
    const signal = event.target as AbortSignal; // the DOM types cannot say whose event it is
    fanouts.delete(signal);
    const told = [...this.all];
    this.all.clear();
    for (const watcher of told) watcher.onAbort(signal.reason);
    for (const watcher of told) watcher.afterAbort?.();
  }
}

const fanouts = new WeakMap<AbortSignal, Watchers>();

/**
 * Tells `watcher` when `signal` aborts. However many watch, a signal carries one listener: more than ten would
 * print a warning, and a signal that outlives its calls must not collect them.
 */
export function watchAbort(signal: AbortSignal, watcher: AbortWatcher): void {
  let watchers = fanouts.get(signal);
  if (watchers === undefined) {
    watchers = new Watchers();
    fanouts.set(signal, watchers);
    signal.addEventListener("abort", watchers, { once: true });
  }
  watchers.all.add(watcher);
}

/** Stops watching; the signal's listener goes with its last watcher. Idempotent. */
export function unwatchAbort(signal: AbortSignal, watcher: AbortWatcher): void {
  const watchers = fanouts.get(signal);
  if (watchers?.all.delete(watcher) && watchers.all.size === 0) {
    fanouts.delete(signal);
    signal.removeEventListener("abort", watchers);
  }
}
