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
    const told: AbortWatcher[] = [];
    for (const watcher of this.all) {
      this.all.delete(watcher); // one that another watcher makes unneeded is taken out, and not told
      told.push(watcher);
      watcher.onAbort(signal.reason);
    }
    watchersOf.delete(signal);
    for (const watcher of told) watcher.afterAbort?.();
  }
}

const watchersOf = new WeakMap<AbortSignal, Watchers>();

/**
 * Tells `watcher` when `signal` aborts. However many watch, a signal carries one listener: more than ten would
 * print a warning, and a signal that outlives its calls must not collect them.
 */
export function watchAbort(signal: AbortSignal, watcher: AbortWatcher): void {
  let watchers = watchersOf.get(signal);
  if (watchers === undefined) {
    watchers = new Watchers();
    watchersOf.set(signal, watchers);
    signal.addEventListener("abort", watchers, { once: true });
  }
  watchers.all.add(watcher);
}

/** Stops watching; the signal's listener goes with its last watcher. Idempotent. */
export function unwatchAbort(signal: AbortSignal, watcher: AbortWatcher): void {
  const watchers = watchersOf.get(signal);
  if (watchers?.all.delete(watcher) && watchers.all.size === 0) {
    watchersOf.delete(signal);
    signal.removeEventListener("abort", watchers);
  }
}
