import { test } from "node:test";
import { runProgram } from "../support/simulator/program.ts";

/** On a machine that is busy otherwise, four events deep must do. */
const seconds = 10;

test("every order of five events keeps every rule, with two keys, two conns and three callers", async (t) => {
  await runProgram(t, "explore", 5, seconds);
});
