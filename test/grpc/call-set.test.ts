import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CallSet } from "../../src/grpc/call.ts";

test("a call set holds what a Set would, whatever comes and goes", () => {
  const step = fc.record({ add: fc.boolean(), index: fc.nat({ max: 9 }) });
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const items = Array.from({ length: 10 }, () => ({ place: -1 }));
      const calls = new CallSet<{ place: number }>();
      const model = new Set<{ place: number }>();
      for (const { add, index } of steps) {
        const item = items[index];
        if (item === undefined || (add && model.has(item))) continue;
        if (add) {
          calls.add(item);
          model.add(item);
        } else {
          calls.delete(item);
          model.delete(item);
        }
        assert.equal(calls.size, model.size);
        assert.deepEqual(new Set(calls.all()), model);
      }
      for (const item of items) assert.equal(item.place >= 0, model.has(item));
    }),
  );
});
