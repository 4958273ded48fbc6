#!/usr/bin/env node
import { top } from "./top.ts";

const usage = `rpc-conn-pool top <url>

  Draws the pools of a process in the terminal, once a second. <url> is that of a dashboard as examples/dashboard serves it.
  Ends with Ctrl-C.
`;

const [command, url, ...rest] = process.argv.slice(2);
if (command === "top" && url !== undefined && URL.canParse(url) && rest.length === 0) {
  process.stdout.on("error", () => process.exit()); // whoever reads it has had enough
  top(url, process.stdout).catch((error: unknown) => {
    const { message, cause } = error instanceof Error ? error : new Error(String(error));
    process.stderr.write(`${url}: ${message}${cause instanceof Error ? `: ${reasonOf(cause)}` : ""}\n`);
    process.exitCode = 1;
  });
} else {
  const isHelp = command === "help" || command === "--help";
  (isHelp ? process.stdout : process.stderr).write(usage);
  process.exitCode = isHelp ? 0 : 2;
}

/** Node's error of a name with several addresses has a code, and no message. */
function reasonOf(error: Error): string {
  return error.message === "" && "code" in error ? String(error.code) : error.message;
}
