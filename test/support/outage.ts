import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Dial } from "../../src/contract.ts";
import { dialSocket } from "../../src/net/dial.ts";
import type { SocketConn } from "../../src/net/socket.ts";
import { Pool } from "../../src/pool/pool.ts";

export type Mood = "well" | "silent" | "resetting";

/** A peer that echoes lines, and falls ill on demand. */
export class EchoPeer {
  #mood: Mood = "well";
  #server: Server | undefined;
  readonly #sockets = new Set<Socket>();
  /** Connections that it has accepted. */
  accepted = 0;
  key = "";

  async listen(): Promise<this> {
    const port = Number(this.key.split(":")[1] ?? 0);
    this.#server = createServer((socket) => this.#serve(socket)).listen(port, "127.0.0.1");
    await once(this.#server, "listening");
    this.key = `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  feel(mood: Mood): void {
    this.#mood = mood;
    if (mood === "resetting") for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  die(): void {
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #serve(socket: Socket): void {
    this.accepted++;
    if (this.#mood === "resetting") {
      socket.resetAndDestroy();
      return;
    }
    this.#sockets.add(socket.setNoDelay(true).on("error", () => {}));
    socket.on("close", () => void this.#sockets.delete(socket));
    socket.on("data", (data) => void (this.#mood === "well" && socket.write(data)));
  }
}

/** Sends a line and waits for its echo. A peer that goes quietly says so by its end. */
function echo({ socket }: SocketConn, giveUp: (stop: (error: unknown) => void) => () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (how: () => void) => {
      forget();
      socket.off("data", answered).off("close", closed).pause();
      how();
    };
    const answered = () => settle(resolve);
    const closed = () => settle(() => reject(new Error("closed")));
    const forget = giveUp((error) => settle(() => reject(error)));
    socket.on("data", answered).on("close", closed).resume();
    socket.write("hello\n");
  });
}

const tcp = dialSocket();

/** Dialed means that the peer has answered, as with any real protocol. */
export const dial: Dial<string, SocketConn> = Object.assign(
  async (key: string, { signal }: { signal: AbortSignal }) => {
    const conn = await tcp(key, { signal });
    try {
      await echo(conn, (stop) => {
        const aborted = () => stop(signal.reason);
        signal.addEventListener("abort", aborted);
        return () => signal.removeEventListener("abort", aborted);
      });
      return conn;
    } catch (error) {
      void conn.close();
      throw error;
    }
  },
  { maxStreams: 1 },
);

/** What one key's callers have seen. */
export class Experience {
  readonly ms: number[] = [];
  readonly errors: unknown[] = [];
  succeededAt = 0;
}

/** So long a call waits for its answer. */
export const answerMs = 500;

/** Two callers per key, a call every 25 ms each, until `signal` aborts. */
export async function load(
  pool: Pool<string, SocketConn>,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<Map<string, Experience>> {
  const seen = new Map(keys.map((key) => [key, new Experience()]));
  const caller = async (key: string, experience: Experience) => {
    while (!signal.aborted) {
      const start = performance.now();
      try {
        await pool.use(key, (conn) => call(conn), { timeoutMs: 1000 });
        experience.succeededAt = performance.now();
        experience.ms.push(experience.succeededAt - start);
      } catch (error) {
        experience.errors.push(error);
      }
      await sleep(25);
    }
  };
  running = seen;
  await Promise.all([...seen].flatMap(([key, experience]) => [caller(key, experience), caller(key, experience)]));
  return seen;
}

/** What the callers of the load that runs have seen so far. */
export let running: ReadonlyMap<string, Experience> = new Map();

async function call(conn: SocketConn): Promise<void> {
  try {
    await echo(conn, (stop) => {
      const timer = setTimeout(() => stop(new Error("no answer")), answerMs);
      return () => clearTimeout(timer);
    });
  } catch (error) {
    void conn.close(); // an answer that is late would be taken for the next
    throw error;
  }
}

export function p99(experiences: Iterable<Experience>): number {
  const all = [...experiences].flatMap(({ ms }) => ms).sort((a, b) => a - b);
  return all[Math.floor(all.length * 0.99)] ?? Number.NaN;
}

export function makePool(rules: { baseMs: number; maxMs: number }, dialTimeoutMs: number): Pool<string, SocketConn> {
  return new Pool<string, SocketConn>({ dial, dialTimeoutMs, backoff: rules, expirationMs: 60_000 });
}
