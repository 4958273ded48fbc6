import { NoopConn, rpc } from "./noop.ts";
import type { Contender } from "./row.ts";

/** The call itself, without a pool: what others are compared with. */
export function direct(): Contender {
  const conn = new NoopConn();
  return {
    name: "direct",
    run: async (n) => {
      for (let i = 0; i < n; i++) await conn.invoke(rpc, "request");
    },
  };
}
