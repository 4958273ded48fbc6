import { createInterface } from "node:readline";
import { Client, credentials } from "@grpc/grpc-js";
import { dialDrpc } from "../../src/drpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import type { GoPeer } from "../interop/gopeer.ts";
import { goService } from "../interop/grpcpeer.ts";
import { peer } from "../support/peer.ts";
import { type Caller, crew } from "./caller.ts";

export const message: Buffer = Buffer.alloc(64, "x");

const dial = dialDrpc();
const { signal } = new AbortController();

/** Conns without a pool, each with a caller of its own. */
export async function bare(address: string, size: number): Promise<Caller> {
  const conns = await Promise.all(Array.from({ length: size }, async () => dial(address, { signal })));
  return crew({
    name: "bare",
    size,
    warmMs: 400,
    call: async (member) => conns[member]?.invoke(peer.echo, message),
    end: () => Promise.all(conns.map((conn) => conn.close())),
  });
}

export function pooled(address: string, size: number): Caller {
  const pool = new Pool<string>({ dial });
  const conn = pool.get(address);
  return crew({ name: "pooled", size, call: () => conn.invoke(peer.echo, message), end: () => pool.close() });
}

/** A conn for each call. */
export function dialing(address: string, size: number): Caller {
  const call = async (): Promise<void> => {
    const conn = await dial(address, { signal });
    await conn.invoke(peer.echo, message);
    await conn.close();
  };
  const callers = crew({ name: "dialing", size, call, end: () => {} });
  // Each call leaves a port that the system keeps for a while, and it has no more than some ten thousands.
  return { ...callers, rate: (ms) => callers.rate(ms / 2) };
}

/** The Go client, in a process of its own. */
export function goClient(go: GoPeer, address: string, size: number): Caller {
  const client = go.start("bench", address, String(size));
  const rates = createInterface(client.stdout)[Symbol.asyncIterator]();
  return {
    name: "go",
    warmMs: 0,
    rate: async (ms) => {
      client.stdin.write(`${ms}\n`);
      const { value, done } = await rates.next();
      if (done) throw new Error("the Go client has ended");
      return Number(value);
    },
    end: () => client.stdin.end(),
  };
}

/** All calls on one channel, which is one connection. */
export function grpcJs(address: string, size: number): Caller {
  const client = new Client(address, credentials.createInsecure());
  const { path, requestSerialize, responseDeserialize } = goService.echo;
  const call = (): Promise<unknown> =>
    new Promise((resolve, reject) => {
      client.makeUnaryRequest(path, requestSerialize, responseDeserialize, message, (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
  return crew({ name: "grpc-js", size, warmMs: 2000, call, end: () => client.close() });
}
