import type { Duplex } from "node:stream";

/**
 * Reads whether a connection begins with `header`, and takes that away; anything else it puts back. `undefined`: the
 * connection has ended before it said so much.
 */
export function startsWith(duplex: Duplex, header: string): Promise<boolean | undefined> {
  return new Promise((resolve) => {
    const done = (answer: boolean | undefined): void => {
      duplex.off("readable", read);
      duplex.off("end", ended);
      duplex.off("close", ended);
      resolve(answer);
    };
    const ended = (): void => done(undefined);
    const read = (): void => {
      const bytes: Buffer | null = duplex.read(header.length);
      if (bytes === null) return;
      const matches = bytes.toString("latin1") === header;
      if (!matches) duplex.unshift(bytes);
      done(matches);
    };
    duplex.on("readable", read);
    duplex.on("end", ended);
    duplex.on("close", ended);
    read();
  });
}
