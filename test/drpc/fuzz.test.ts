/**
 * Random and mutated bytes against the reader, the conn and the server: no crash, no hang, no growth. A few seconds
 * of it in `npm test`; `DRPC_FUZZ_RUNS=1000000` runs that many inputs, `DRPC_FUZZ_SEED` repeats a run.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  DrpcConn,
  DrpcError,
  DrpcProtocolError,
  DrpcServer,
  encodePackets,
  Kind,
  PacketReader,
} from "../../src/drpc/index.ts";
import { isPoolError } from "../../src/errors.ts";
import { turns } from "../support/clock.ts";
import { peer, peerHandlers } from "../support/peer.ts";
import { Far, packet } from "../support/wire.ts";

const { DRPC_FUZZ_RUNS = 9000, DRPC_FUZZ_SEED = Date.now() % 2 ** 31 } = process.env;
const seed = Number(DRPC_FUZZ_SEED);
const each = Math.ceil(Number(DRPC_FUZZ_RUNS) / 3);
const maxPacketBytes = 4096;

/** Streams of packets that make sense, from either side. */
const golden = fc
  .array(
    fc.record({
      kind: fc.constantFrom(...Object.values(Kind), 0, 9, 63),
      control: fc.boolean(),
      newStream: fc.boolean(),
      data: fc.oneof(
        fc
          .constantFrom(...Object.values(peer).map(({ path }) => path), "", "300", "7 oh")
          .map((text) => Buffer.from(text)),
        fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      ),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .chain((parts) =>
    fc.integer({ min: 0, max: 50 }).map((splitBytes) => {
      let stream = 1;
      let message = 0;
      const packets = parts.map(({ newStream, ...part }) => {
        if (newStream) stream++;
        return { ...part, stream, message: ++message };
      });
      return Buffer.concat(encodePackets(packets, splitBytes));
    }),
  );

/** The same with bytes changed, cut out, doubled or put in. */
const mutated = fc
  .tuple(golden, fc.array(fc.record({ at: fc.nat(), how: fc.nat(3), byte: fc.nat(255) }), { maxLength: 4 }))
  .map(([bytes, changes]) =>
    changes.reduce((from, { at, how, byte }) => {
      const i = from.length === 0 ? 0 : at % from.length;
      const middle = [[byte], [], [from[i] ?? 0, from[i] ?? 0], [byte, from[i] ?? 0]][how] ?? [];
      return Buffer.concat([from.subarray(0, i), Buffer.from(middle), from.subarray(i + 1)]);
    }, bytes),
  );

const input = fc.record({
  bytes: fc.oneof(
    { weight: 5, arbitrary: mutated },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)) },
  ),
  cuts: fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 5 }),
});

function* chunks({ bytes, cuts }: { bytes: Buffer; cuts: number[] }): Generator<Buffer> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const end = at + (cuts[i % cuts.length] ?? 1);
    yield Buffer.from(bytes.subarray(at, end));
    at = end;
  }
}

/** Heap and buffers in use, with what can go gone. */
function memory(): number {
  const { gc } = globalThis;
  gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** Runs inputs in slices, so that fast-check keeps nothing of a million. */
async function fuzz(
  name: string,
  one: (made: { bytes: Buffer; cuts: number[] }) => void | Promise<void>,
): Promise<void> {
  const slice = 1000;
  let early = 0;
  for (let done = 0, round = 0; done < each; done += slice, round++) {
    const numRuns = Math.min(slice, each - done);
    await fc.assert(
      fc.asyncProperty(input, async (made) => one(made)),
      { seed: seed + round, numRuns },
    );
    if (round === 3) early = memory();
  }
  if (early > 0) {
    const grown = memory() - early;
    assert(grown < 32 << 20, `${name}: memory grew by ${grown} bytes`);
  }
}

test(`fuzzing the reader (seed ${seed}, ${each} inputs)`, async () => {
  await fuzz("reader", (made) => {
    const reader = new PacketReader(maxPacketBytes, ({ data }) => assert(data.length <= maxPacketBytes));
    try {
      for (const chunk of chunks(made)) reader.push(chunk);
    } catch (error) {
      assert(error instanceof DrpcProtocolError);
    }
  });
});

test(`fuzzing a conn that runs RPCs (seed ${seed}, ${each} inputs)`, async () => {
  let streaming = false;
  await fuzz("conn", async (made) => {
    const far = new Far();
    const conn = new DrpcConn(far.near, { maxPacketBytes });
    streaming = !streaming;
    const rpc = streaming ? iterate(conn) : conn.invoke(peer.echo, Buffer.alloc(1));
    const ended = rpc.catch((error) => assert(error instanceof DrpcError || isPoolError(error), String(error)));
    for (const chunk of chunks(made)) far.near.push(chunk);
    await turns(1);
    await conn.close();
    await ended;
    await conn.closed;
  });
});

async function iterate(conn: DrpcConn): Promise<void> {
  const stream = await conn.newStream(peer.chat);
  for await (const message of stream) assert(message.length <= maxPacketBytes);
  await stream.closed;
}

test(`fuzzing a server, which serves others all the time (seed ${seed}, ${each} inputs)`, async () => {
  const { count, ...others } = peerHandlers();
  const server = new DrpcServer({ maxPacketBytes }).add(peer, {
    ...others,
    count: (request, context) => count(Buffer.from(request.subarray(0, 3)), context), // some inputs make it billions
  });
  const friend = new Far();
  server.serve(friend.near);
  let stream = 0;
  await fuzz("server", async (made) => {
    const far = new Far();
    server.serve(far.near);
    for (const chunk of chunks(made)) far.near.push(chunk);
    friend.chunks.length = 0;
    friend.send(
      packet("invoke", ++stream, 1, peer.echo.path),
      packet("message", stream, 2, "x"),
      packet("closeSend", stream, 3),
    );
    await turns(1);
    far.near.destroy();
    assert.deepEqual(await friend.got(2), [`message ${stream}/1 x`, `closeSend ${stream}/2`]);
  });
  await server.close({ graceMs: 0 });
});
