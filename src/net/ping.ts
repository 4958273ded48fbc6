import type { ClientHttp2Session } from "node:http2";
import { unwatchAbort, watchAbort } from "../runtime/abort.ts";

/** How often a ping looks whether bytes have come: beside the answer that it hopes for, and where it could not be sent. */
const lookMs = 20;

/**
 * Asks the peer for a sign of life, and resolves when one has come: the answer to an HTTP/2 PING, or any other byte. Where
 * Node sends none (ten are on their way, or the conn drains), the byte is waited for. Resolves at once when the session is
 * over, which `closed` tells better. Rejects with the signal's reason, and with nothing else: what Node would not send is
 * no evidence against the peer.
 *
 * @param bytesRead grows with every byte that comes from the peer.
 * @see https://nodejs.org/api/http2.html#http2sessionpingpayload-callback
 */
export function pingHttp2(
  session: ClientHttp2Session,
  bytesRead: () => number,
  signal: AbortSignal | undefined,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const readBefore = bytesRead();
    if (signal?.aborted) return reject(signal.reason);
    if (session.destroyed) return resolve();
    const end = (): void => {
      clearInterval(timer);
      if (signal !== undefined) unwatchAbort(signal, watcher);
      resolve();
    };
    const look = (): void => {
      if (session.destroyed || bytesRead() > readBefore) end();
    };
    const timer = setInterval(look, lookMs).unref();
    const watcher = {
      onAbort(reason: unknown): void {
        clearInterval(timer);
        reject(reason);
      },
    };
    if (signal !== undefined) watchAbort(signal, watcher);
    session.ping((error) => (error === null ? end() : look()));
  });
}
