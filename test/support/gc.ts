import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");

/** Collects garbage now, so that a test can see what is left. */
export const collectGarbage: () => void = runInNewContext("gc");
