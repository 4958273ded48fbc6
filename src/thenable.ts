/** Whether `value` may be waited for: callbacks of the caller's may or may not be async. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value;
}
