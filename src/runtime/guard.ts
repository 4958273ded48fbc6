import { AsyncResource } from "node:async_hooks";

/** Whether `value` may be waited for: a callback may or may not be async. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (typeof value === "object" || typeof value === "function") && value !== null && "then" in value;
}

/** What `read` returns; `undefined` where it throws. For properties of objects that a caller made. */
export function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** What a function threw, or rejected with. */
export interface Failure {
  readonly error: unknown;
}

/** Runs `action`, which may be async. The promise never rejects; it stays pending if the action's own does. */
export function outcome(action: () => unknown): Promise<Failure | undefined> {
  return new Promise((resolve) => resolve(action())).then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
}

/** The context of whoever loaded this module: nobody's request. */
const outside = new AsyncResource("rpc-conn-pool");

/** Runs `action` in no caller's async context: what it does is done for many, or lives longer than the caller. */
export function inNoContext<T>(action: () => T): T {
  return outside.runInAsyncScope(action);
}
