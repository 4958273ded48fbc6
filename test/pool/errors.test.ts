import assert from "node:assert/strict";
import { test } from "node:test";
import * as errors from "../../src/errors.ts";
import { rejection } from "../support/outcome.ts";

test("errors are typed: a stable code each, and a brand that survives two copies of the package", async () => {
  const brand = Symbol.for("rpc-conn-pool.error");
  const all: [Error, string][] = [
    [new errors.PoolClosedError(), "ERR_POOL_CLOSED"],
    [new errors.ConnClosedError("died", false), "ERR_POOL_CONN_CLOSED"],
    [new errors.DialError("x"), "ERR_POOL_DIAL"],
    [new errors.DialTimeoutError("x"), "ERR_POOL_DIAL_TIMEOUT"],
    [new errors.WaitTimeoutError("x"), "ERR_POOL_WAIT_TIMEOUT"],
    [new errors.QueueFullError("x"), "ERR_POOL_QUEUE_FULL"],
    [new errors.NoConnError("x"), "ERR_POOL_NO_CONN"],
    [new errors.NoMatchError("x"), "ERR_POOL_NO_MATCH"],
    [new errors.PoolTypeError("x"), "ERR_POOL_ARGUMENT"],
    [new errors.PoolRangeError("x"), "ERR_POOL_ARGUMENT"],
  ];
  for (const [error, code] of all) {
    assert.ok(errors.isPoolError(error));
    assert.deepEqual([error.code, error.name], [code, error.constructor.name]);
    assert.ok(brand in error);
  }
  assert.ok(new errors.DialTimeoutError("x") instanceof errors.DialError);
  assert.ok(errors.isPoolError({ [brand]: true })); // another copy's
  for (const other of [new Error("x"), null, undefined, "x"]) assert.equal(errors.isPoolError(other), false);
  assert.equal((await rejection(Promise.reject(new errors.PoolClosedError()))).name, "PoolClosedError");
});

test("two copies of the package know each other's errors", async () => {
  const copy: typeof errors = await import(`../../src/errors.js${"?copy"}`);
  assert.notEqual(copy.PoolError, errors.PoolError);
  for (const [here, there] of [
    [errors, copy],
    [copy, errors],
  ] as const) {
    for (const error of [new here.PoolClosedError(), new here.DialTimeoutError("x"), new here.PoolTypeError("x")]) {
      assert.ok(there.isPoolError(error));
    }
    assert.equal(new here.DialError("x") instanceof there.DialError, false, "the brand is what they have in common");
  }
});
