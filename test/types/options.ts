/** Under `exactOptionalPropertyTypes`, everything that may be left out may also be given as `undefined`. */
import type {
  AcquireOptions,
  Backoff,
  CallOptions,
  Conn,
  Dial,
  GetOptions,
  KeyLimits,
  Limits,
  PoolConn,
  PoolOptions,
} from "rpc-conn-pool";
import { Pool, type socketConn } from "rpc-conn-pool";

type Optional<T> = { [P in keyof T as object extends Pick<T, P> ? P : never]: undefined };
/** `true` where every optional property of `T` takes `undefined`. */
type TakesUndefined<T> = Optional<T> extends Pick<T, keyof T & keyof Optional<T>> ? true : false;

export const taken: readonly true[] = [
  true satisfies TakesUndefined<PoolOptions<string, Conn>>,
  true satisfies TakesUndefined<Limits>,
  true satisfies TakesUndefined<KeyLimits>,
  true satisfies TakesUndefined<Backoff>,
  true satisfies TakesUndefined<AcquireOptions<string, Conn>>,
  true satisfies TakesUndefined<GetOptions<Conn>>,
  true satisfies TakesUndefined<CallOptions>,
  true satisfies TakesUndefined<PoolConn>,
  true satisfies TakesUndefined<NonNullable<Parameters<Pool["close"]>[0]>>,
  true satisfies TakesUndefined<NonNullable<Parameters<Pool["tryAcquire"]>[1]>>,
  true satisfies TakesUndefined<NonNullable<Parameters<typeof socketConn>[1]>>,
];
// @ts-expect-error the check itself sees what does not
export const seen = true satisfies TakesUndefined<{ optional?: string }>;

declare const maybeSignal: AbortSignal | undefined;
declare const maybeNumber: number | undefined;
declare const maybeDial: Dial<string, Conn> | undefined;

const pool = new Pool({
  capacity: maybeNumber,
  dial: maybeDial,
  backoff: undefined,
  clock: undefined,
  name: undefined,
});
pool.get("host:1", maybeDial, { signal: maybeSignal, filter: undefined, retryUnsent: undefined });
await pool.acquire("host:1", { dial: maybeDial, signal: maybeSignal, timeoutMs: maybeNumber });
pool.configure({ maxConns: maybeNumber, expirationMs: undefined });
await pool.close({ graceMs: maybeNumber });

// @ts-expect-error an option that there is not
new Pool({ capacty: 1 });
// @ts-expect-error a limit of the wrong kind
new Pool({ capacity: "10" });
