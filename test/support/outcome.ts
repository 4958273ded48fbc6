import assert from "node:assert/strict";
import { after } from "node:test";
import { settle } from "./clock.ts";

/** What has become of a promise so far. */
export interface Outcome<T> {
  state: "pending" | "resolved" | "rejected";
  value: T | undefined;
  error: unknown;
}

/** Watches a promise without waiting for it; a rejection counts as handled. */
export function outcome<T>(promise: Promise<T>): Outcome<T> {
  const result: Outcome<T> = { state: "pending", value: undefined, error: undefined };
  promise.then(
    (value) => Object.assign(result, { state: "resolved", value }),
    (error: unknown) => Object.assign(result, { state: "rejected", error }),
  );
  return result;
}

export function states(...outcomes: readonly Outcome<unknown>[]): Outcome<unknown>["state"][] {
  return outcomes.map(({ state }) => state);
}

/** What a promise resolves to; fails where it has not settled within a few turns of the event loop. */
export async function soon<T>(promise: Promise<T>): Promise<T> {
  const result = outcome(promise);
  await settle();
  assert.notEqual(result.state, "pending", "the promise is still pending");
  return promise;
}

/** What a promise is rejected with, an error or not, however long that takes; fails where it resolves. */
export async function reasonOf(promise: PromiseLike<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (reason) {
    return reason;
  }
  assert.fail("it did not reject");
}

/** The error that a promise is rejected with, however long that takes; fails where it is none. */
export async function rejection(promise: PromiseLike<unknown>): Promise<Error> {
  const error = await reasonOf(promise);
  assert.ok(error instanceof Error, `rejected with no Error: ${String(error)}`);
  return error;
}

/** Like `reasonOf`, but fails where the promise has not been rejected within a few turns of the event loop. */
export async function refusal(promise: Promise<unknown>): Promise<unknown> {
  const result = outcome(promise);
  await settle();
  assert.equal(result.state, "rejected");
  return result.error;
}

/** Fails the file that calls it if a promise was rejected unheard, or an exception went uncaught, while it ran. */
export function nothingUnheard(): void {
  const unheard: unknown[] = [];
  const hear = (reason: unknown) => void unheard.push(reason);
  process.on("unhandledRejection", hear);
  process.on("uncaughtException", hear);
  after(async () => {
    await settle();
    process.off("unhandledRejection", hear);
    process.off("uncaughtException", hear);
    assert.deepEqual(unheard, []);
  });
}
