import type { FaultProxy, Weather } from "./proxy.ts";

/** Something that a network or a peer does to one key for a while. */
export interface Fault {
  readonly name: string;
  readonly begin: (proxy: FaultProxy) => void;
  readonly end: (proxy: FaultProxy) => unknown;
  /** Calls must fail while it lasts, may fail, or must not. */
  readonly calls: "fail" | "may fail" | "succeed";
}

const clear = (proxy: FaultProxy): void => {
  proxy.weather = {};
};

const turn = (weather: Weather) => (proxy: FaultProxy) => {
  proxy.weather = weather;
};

export const faults: readonly Fault[] = [
  {
    name: "latency and jitter (20 to 60 ms)",
    begin: turn({ latencyMs: 20, jitterMs: 40 }),
    end: clear,
    calls: "succeed",
  },
  {
    name: "bandwidth (20 kB/s)",
    begin: turn({ bytesPerMs: 20 }),
    end: clear,
    calls: "succeed",
  },
  {
    name: "cut, and cut again",
    begin: (proxy) => {
      proxy.weather = { turnsAway: "cut" };
      for (const link of proxy.links) link.cut();
    },
    end: clear,
    calls: "fail",
  },
  {
    name: "reset, and refused",
    begin: (proxy) => {
      proxy.refuse();
      for (const link of proxy.links) link.reset();
    },
    end: (proxy) => proxy.listen(),
    calls: "fail",
  },
  {
    name: "half-open",
    begin: (proxy) => {
      for (const link of proxy.links) link.die();
    },
    end: clear,
    calls: "fail",
  },
  {
    name: "FIN without close",
    begin: (proxy) => {
      for (const link of proxy.links) link.finish();
    },
    end: clear,
    calls: "may fail",
  },
  {
    name: "corrupted bytes (one in 200)",
    begin: turn({ corruptEach: 200 }),
    // A length that lies is found out only when so much has come: 16 KiB in HTTP/2.
    end: (proxy) => {
      proxy.weather = {};
      for (const link of proxy.links) link.garble(1 << 15);
    },
    calls: "may fail",
  },
  {
    name: "reset, and slow accept (200 ms)",
    begin: (proxy) => {
      proxy.weather = { acceptMs: 200 };
      for (const link of proxy.links) link.reset();
    },
    end: clear,
    calls: "may fail",
  },
  {
    name: "stop and continue",
    begin: (proxy) => {
      for (const link of proxy.links) link.stop();
    },
    end: (proxy) => {
      for (const link of proxy.links) link.go();
    },
    calls: "may fail",
  },
];
