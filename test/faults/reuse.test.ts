import { test } from "node:test";
import { runProgram } from "../support/simulator/program.ts";

test(
  "calls of a fleet with deploys, failovers, churn and limits reuse conns, and none unsafely",
  { timeout: 60_000 },
  (t) => runProgram(t, "../faults/reuse", 1, 1),
);
