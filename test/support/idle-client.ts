// Run by a test as a process of its own: it makes one call, closes nothing, and must end.
import { credentials } from "@grpc/grpc-js";
import { dialGrpc } from "../../src/grpc/index.ts";
import { echoService } from "./echo-service.ts";

const dial = dialGrpc(credentials.createInsecure());
// A dial does not hold the process either: whoever waits for it does, here with a timer.
const hold = setInterval(() => {}, 1_000);
const conn = await dial(process.argv[2] ?? "", { signal: new AbortController().signal });
const { text } = await conn.invoke(echoService.unary, { text: "idle" });
clearInterval(hold);
console.log(text);
