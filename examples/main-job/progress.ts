const { stdout } = process;
const width = 24;

/** One line that keeps up with the work on a terminal; a line when it begins, elsewhere. */
export function begin(name: string): (calls: number, share: number) => void {
  if (!stdout.isTTY) {
    console.log(`running: ${name}`);
    return () => {};
  }
  return (calls, share) => {
    const filled = Math.round(width * Math.min(share, 1));
    const bar = "█".repeat(filled) + "░".repeat(width - filled);
    stdout.write(`\r\x1b[2K${bar} ${name}: ${calls.toLocaleString("en")} calls`);
  };
}

/** Takes the line away again. */
export function end(): void {
  if (stdout.isTTY) stdout.write("\r\x1b[2K");
}
