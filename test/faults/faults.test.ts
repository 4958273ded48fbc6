import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { faults } from "../support/faults/faults.ts";
import { runFaults } from "../support/faults/run.ts";
import { transportNames } from "../support/faults/transports.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

/** Short of what `npm run test:faults` does: half-open conns are skipped by then, but not closed yet. */
const pace = { ms: 1_300, callers: 2, restMs: 20, timeoutMs: 500, untilClean: false };

/** What a busy machine may do to any call. */
const late = ["DEADLINE_EXCEEDED", "DeadlineExceeded", "DrpcTimeoutError", "WAIT_TIMEOUT"];

describe("nine faults of a network, each on its own key", { concurrency: true }, () => {
  for (const name of transportNames) {
    test(`${name}: calls end as they should, none runs twice, keys are whole again, and no other key notices`, async () => {
      const { rows, other } = await runFaults(name, pace);
      assert.deepEqual(other.failed, {}, "the key without a fault");
      for (const [i, { fault, failed, sentTwice, wrong, left, backAfterMs }] of rows.entries()) {
        const { calls } = faults[i] ?? assert.fail();
        if (calls === "fail") assert.notDeepEqual(failed, {}, fault);
        if (calls === "succeed")
          assert.deepEqual(
            Object.keys(failed).filter((word) => !late.includes(word)),
            [],
            fault,
          );
        assert.equal(sentTwice, 0, fault);
        assert.ok(wrong === 0 || fault.includes("corrupted"), fault);
        assert.deepEqual(left, [], fault);
        assert.ok(backAfterMs > 0, fault);
      }
    });
  }
});
