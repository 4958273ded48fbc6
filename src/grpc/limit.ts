import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { ClientHttp2Stream } from "node:http2";
import type { Socket } from "node:net";

/** Newer Nodes tell of each HTTP/2 stream, and with it of its session: https://nodejs.org/api/diagnostics_channel.html */
const channel = "http2.client.stream.created";

/** HTTP/2's word for no limit. */
const unlimited = 2 ** 32 - 1;

/** Who waits for the first stream on a socket, by the socket's own end. */
const learners = new Map<string, (limit: number | undefined) => void>();

/**
 * Tells `learn` how many streams the peer allows at once on any of `sockets`, `undefined` if as many as one likes: once,
 * at the first stream, and never where Node does not show it (Node 20) or a socket has no port. Returns what ends the wait.
 */
export function learnLimit(sockets: Iterable<Socket>, learn: (limit: number | undefined) => void): () => void {
  const names = Array.from(sockets, nameOf).filter((name) => name !== undefined);
  if (learners.size === 0) subscribe(channel, onStream);
  for (const name of names) learners.set(name, learn);
  return () => {
    for (const name of names) learners.delete(name);
    if (learners.size === 0) unsubscribe(channel, onStream);
  };
}

function onStream(message: unknown): void {
  const { stream } = message as { stream: ClientHttp2Stream }; // as Node documents it
  const { session } = stream;
  const name = session?.socket && nameOf(session.socket);
  if (session === undefined || name === undefined) return;
  const limit = session.remoteSettings.maxConcurrentStreams;
  learners.get(name)?.(limit === unlimited ? undefined : limit);
}

function nameOf({ localAddress, localPort }: Pick<Socket, "localAddress" | "localPort">): string | undefined {
  return localPort === undefined ? undefined : `${localAddress} ${localPort}`;
}
