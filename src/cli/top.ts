import type { PoolStats } from "../index.ts";

/** A picture of a pool, as a dashboard sends it. */
export interface Picture {
  readonly name: string;
  /** Milliseconds. */
  readonly at: number;
  readonly stats: PoolStats;
  readonly times: Readonly<Record<string, readonly [p50: number, p99: number] | undefined>>;
  readonly keys: readonly { readonly name: string; readonly stats: PoolStats }[];
}

/** Where the pictures are drawn. */
export interface Screen {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

/** Draws each picture that a dashboard sends, until it sends no more. */
export async function top(url: string, screen: Screen): Promise<void> {
  const response = await fetch(new URL("events", url));
  if (!response.ok || response.body === null) throw new Error(`answered ${response.status}: is a dashboard there?`);
  let before: readonly Picture[] = [];
  for await (const data of eventsOf(response.body)) {
    const pictures: readonly Picture[] = JSON.parse(data);
    const lines = pictures.flatMap((picture, i) => draw(picture, before[i]));
    before = pictures;
    const { isTTY = false, columns = 80, rows = 24 } = screen;
    const text = isTTY ? lines.slice(0, rows - 1).map((line) => line.slice(0, columns)) : lines;
    // On a terminal over the picture before: from its upper left, each line to its end, and what is below.
    screen.write(isTTY ? `\x1b[H${text.join("\x1b[K\n")}\x1b[J` : `${text.join("\n")}\n`);
  }
}

/** The data of server-sent events, whose lines may come in pieces. */
async function* eventsOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of body) {
    const events = (text + decoder.decode(bytes, { stream: true })).split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) if (event.startsWith("data: ")) yield event.slice(6);
  }
}

function draw({ name, at, stats, times, keys }: Picture, before: Picture | undefined): string[] {
  const seconds = before === undefined ? undefined : (at - before.at) / 1_000;
  const callsBefore = new Map(before?.keys.map((key) => [key.name, callsOf(key.stats)]));
  const rate = (now: number, then: number | undefined): string =>
    seconds === undefined || then === undefined ? "-" : ((now - then) / seconds).toFixed(0);
  const { open, idle, leased, draining, dialing, waiting, streams, timeouts, refused, failed } = stats;
  const counts = { idle, used: leased, draining, dialing, streams, waiting, timeouts, refused, failed };
  const quantiles = Object.entries(times).map(([kind, time]) =>
    time === undefined ? `${kind} -` : `${kind} ${time[0].toFixed(1)} / ${time[1].toFixed(1)} ms`,
  );
  const width = Math.min(Math.max(20, ...keys.map((key) => key.name.length)), 48);
  const row = (key: string, ...cells: (string | number)[]): string =>
    plain(key).slice(0, width).padEnd(width) + cells.map((cell) => String(cell).padStart(9)).join("");
  return [
    `${plain(name)}: ${rate(callsOf(stats), before && callsOf(before.stats))} calls/s; p50 / p99: ${quantiles.join(", ")}`,
    `${open} open: ${someOf(counts)}`,
    `closed: ${someOf(stats.closed)}`,
    "",
    row("key", "used", "idle", "draining", "dialing", "streams", "waiting", "calls/s"),
    ...keys.map((key) => {
      const one = key.stats;
      const calls = rate(callsOf(one), callsBefore.get(key.name));
      return row(key.name, one.leased, one.idle, one.draining, one.dialing, one.streams, one.waiting, calls);
    }),
    "",
  ];
}

function callsOf({ hits, served }: PoolStats): number {
  return hits + served;
}

/** Counts that are not 0, as text. */
function someOf(counts: Readonly<Record<string, number>>): string {
  const some = Object.entries(counts).filter(([, count]) => count > 0);
  return some.length === 0 ? "none" : some.map(([name, count]) => `${count} ${name}`).join(", ");
}

/** Without what a terminal would obey: names come from the process that is looked at. */
function plain(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, "?");
}
