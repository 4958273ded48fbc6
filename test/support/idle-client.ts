// Run by a test as a process of its own: it makes one call, closes nothing, and must end.
import { credentials } from "@grpc/grpc-js";
import { dialGrpc } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { echoService } from "./echo-service.ts";

const conn = new Pool().get(process.argv[2] ?? "", dialGrpc(credentials.createInsecure()));
const { text } = await conn.invoke(echoService.unary, { text: "idle" });
console.log(text);
