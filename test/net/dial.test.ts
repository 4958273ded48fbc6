/** What may end a dial, for every adapter that dials. */

import assert from "node:assert/strict";
import { Socket } from "node:net";
import { test } from "node:test";
import { DialError, DialTimeoutError } from "../../src/index.ts";
import { type DialRace, raceDial } from "../../src/net/dial.ts";
import { turns } from "../support/clock.ts";
import { rejection } from "../support/outcome.ts";

function dial(options: { timeoutMs?: number; socket?: Socket } = {}) {
  const controller = new AbortController();
  let race: DialRace<string> | undefined;
  const limits = { key: "peer:1", signal: controller.signal, timeoutMs: options.timeoutMs };
  const result = raceDial<string>(options.socket, limits, (begun) => {
    race = begun;
  });
  assert(race);
  return { controller, limits, race, result };
}

test("a dial ends once: what comes later changes nothing, and errors of its socket are not thrown", async () => {
  const { controller, race, result } = dial();
  const socket = race.own(new Socket());
  race.done("conn");
  race.failed(new Error("late"));
  controller.abort();
  socket.emit("error", new Error("later"));
  assert.equal(await result, "conn");
  assert.equal(socket.destroyed, false);
});

test("a socket that is made when the dial is over is destroyed at once, and no further step is taken", async () => {
  const { controller, race, result } = dial();
  const step = race.wait(turns());
  controller.abort("nobody waits");
  await assert.rejects(result, (reason) => reason === "nobody waits");
  assert.equal(race.own(new Socket()).destroyed, true);
  assert((await rejection(step)) instanceof DialError);
});

test("a socket of a dial that was aborted before it began is destroyed", async () => {
  const socket = new Socket();
  const begun = raceDial(socket, { key: "peer:1", signal: AbortSignal.abort("before") }, () => assert.fail("it began"));
  await assert.rejects(begun, (reason) => reason === "before");
  assert.equal(socket.destroyed, true);
});

test("a socket that closes fails the dial, with the name that the peer has by then", async () => {
  const { limits, race, result } = dial();
  limits.key = "peer:1 (10.0.0.1:1)";
  race.own(new Socket()).destroy();
  race.done("a conn on a dead socket");
  const error = await rejection(result);
  assert(error instanceof DialError);
  assert.match(error.message, /^peer:1 \(10\.0\.0\.1:1\) closed the connection/);
});

test("a dial whose time is up fails, and takes its socket along", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { race, result } = dial({ timeoutMs: 50 });
  const socket = race.own(new Socket());
  t.mock.timers.tick(50);
  assert((await rejection(result)) instanceof DialTimeoutError);
  assert.equal(socket.destroyed, true);
});
