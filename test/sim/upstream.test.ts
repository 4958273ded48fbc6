import { test } from "node:test";
import { runProgram } from "../support/simulator/program.ts";

test("random operations come to the same on storj.io/drpc/drpcpool, but for its known defects", async (t) => {
  await runProgram(t, "upstream", 20_000);
});
