import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const folder = new URL("../../../test/", import.meta.url);

test("the tests' README says what each suite of the pool shows, and names no suite that is not there", () => {
  const readme = readFileSync(new URL("README.md", folder), "utf8");
  const section = /## The suites of the pool\n(.*?)\n## /s.exec(readme)?.[1] ?? "";
  const named = [...section.matchAll(/^\| (`[^|]*`) \|/gm)].flatMap(([, suites = ""]) =>
    [...suites.matchAll(/`([\w-]+)`/g)].map(([, suite]) => suite),
  );
  const there = readdirSync(new URL("pool/", folder)).map((file) => file.replace(/\.test\.ts$/, ""));
  assert.deepEqual(
    named.toSorted((a, b) => (String(a) < String(b) ? -1 : 1)),
    there.filter((suite) => suite !== "suites").toSorted((a, b) => (a < b ? -1 : 1)),
  );
});
