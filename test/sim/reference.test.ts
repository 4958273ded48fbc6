import { test } from "node:test";
import { runProgram } from "../support/simulator/program.ts";

test("through random commands the pool comes to the same as a reference made of lists and loops", async (t) => {
  await runProgram(t, "reference", 100, Math.floor(Date.now() / 86_400_000) * 100);
});
