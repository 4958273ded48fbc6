import type { connectivityState } from "@grpc/grpc-js";

interface Watcher {
  readonly current: connectivityState;
  readonly callback: (error?: Error) => void;
  timer: NodeJS.Timeout | undefined;
}

/** Those who wait for a channel to change its state, each told once. */
export class Watchers {
  readonly #all = new Set<Watcher>();

  get size(): number {
    return this.#all.size;
  }

  /** As grpc-js: the deadline is a time, `Infinity` sets no timer, and passing it is an error. */
  add(current: connectivityState, deadline: Date | number, callback: (error?: Error) => void): void {
    const watcher: Watcher = { current, callback, timer: undefined };
    this.#all.add(watcher);
    const at = Number(deadline);
    if (at === Number.POSITIVE_INFINITY) return;
    const pass = (): void => {
      this.#all.delete(watcher);
      callback(new Error("Deadline passed without connectivity state change"));
    };
    watcher.timer = setTimeout(pass, Math.min(Math.max(at - Date.now(), 0), 2 ** 31 - 1));
  }

  /** Tells those for whom `state` is another one. */
  tell(state: connectivityState): void {
    for (const watcher of this.#all) {
      if (watcher.current === state) continue;
      this.#all.delete(watcher);
      clearTimeout(watcher.timer);
      watcher.callback();
    }
  }
}
