import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { apiReport, reportFile } from "./api.ts";

test("the public types are those of the committed report: changed on purpose? then run `npm run api`", () => {
  assert.deepEqual(apiReport().split("\n"), readFileSync(reportFile, "utf8").split("\n"));
});
