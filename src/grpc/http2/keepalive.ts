import { longestDelayMs } from "../../runtime/clock.ts";

/** https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md */
export interface KeepaliveOptions {
  /** Milliseconds without a byte from the peer, after which it is asked; 0 or less: never. */
  readonly keepaliveMs: number;
  /** Milliseconds that the answer may take. */
  readonly keepaliveTimeoutMs: number;
  /** Also while no call runs. */
  readonly keepaliveWhileIdle: boolean;
}

/** The conn, as its keep-alive sees it. */
export interface Pinged {
  readonly bytesRead: number;
  readonly streams: number;
  readonly closed: PromiseLike<unknown>;
  ping(options: { signal: AbortSignal }): Promise<void>;
}

/** Pings the peer while it is silent, and calls `dead` when it stays so. Its timers do not hold the process. */
export function keepAlive(conn: Pinged, options: KeepaliveOptions, dead: () => void): void {
  const { keepaliveMs, keepaliveTimeoutMs, keepaliveWhileIdle } = options;
  if (!(keepaliveMs > 0)) return;
  let seen = conn.bytesRead;
  let timer: NodeJS.Timeout;
  let over = false;
  const rest = (): void => {
    if (!over) timer = setTimeout(() => void look(), Math.min(keepaliveMs, longestDelayMs)).unref();
  };
  const look = async (): Promise<void> => {
    const silent = conn.bytesRead === seen;
    seen = conn.bytesRead;
    if (silent && (keepaliveWhileIdle || conn.streams > 0)) {
      const late = new AbortController();
      timer = setTimeout(() => late.abort(), Math.min(Math.max(keepaliveTimeoutMs, 1), longestDelayMs)).unref();
      const answered = await conn.ping({ signal: late.signal }).then(
        () => true,
        () => false,
      );
      clearTimeout(timer);
      if (!answered && !over) dead();
    }
    rest();
  };
  rest();
  void conn.closed.then(() => {
    over = true;
    clearTimeout(timer);
  });
}
