/** Who hears what happens in a run, line by line; nobody, unless a run is played again to be read. */
let listener: ((line: string) => void) | undefined;

export function listenToTrace(listen: ((line: string) => void) | undefined): void {
  listener = listen;
}

export function trace(make: () => string): void {
  listener?.(make());
}
