export { FakeClock, settle } from "../../src/testing/clock.ts";
