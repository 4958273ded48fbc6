import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Count, Peer } from "./service.ts";

/** The servers' process, seen from here. */
export class Fleet implements AsyncDisposable {
  readonly peers: readonly Peer[];
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, peers: readonly Peer[]) {
    this.#child = child;
    this.peers = peers;
  }

  static async start(): Promise<Fleet> {
    const child = fork(fileURLToPath(new URL("./servers.js", import.meta.url)));
    return new Fleet(child, await answer<readonly Peer[]>(child));
  }

  /** Counts from zero. */
  async reset(): Promise<void> {
    await this.#ask("reset");
  }

  count(): Promise<Count> {
    return this.#ask("count");
  }

  /** Waits until the servers hold no connection, so that nobody is measured beside another's leftovers. */
  async quiet(): Promise<void> {
    const end = Date.now() + 2_000;
    while ((await this.count()).open > 0 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exit = once(this.#child, "exit");
    this.#child.disconnect();
    await exit;
  }

  #ask(request: "reset" | "count"): Promise<Count> {
    const reply = answer<Count>(this.#child);
    this.#child.send(request);
    return reply;
  }
}

/** The next message of the child, which is ours too: its type is what it sends at that point. */
async function answer<T>(child: ChildProcess): Promise<T> {
  const gone = new AbortController();
  const onExit = (code: number | null): void => gone.abort(new Error(`the servers' process ended (${code})`));
  child.once("exit", onExit);
  try {
    const [message] = await once(child, "message", { signal: gone.signal });
    return message;
  } catch (error) {
    throw gone.signal.aborted ? gone.signal.reason : error;
  } finally {
    child.off("exit", onExit);
  }
}
