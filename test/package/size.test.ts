import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../../../", import.meta.url));

/** What each entry point may add to a program, all of its names used, in thousands of bytes: minified and compressed. */
const most = { "": 42, "/connect": 7, "/drpc": 15, "/grpc": 20, "/http2": 6, "/otel": 5, "/resolve": 7, "/testing": 7 };

for (const [entry, limit] of Object.entries(most)) {
  test(`rpc-conn-pool${entry} adds at most ${limit} kB to a program, compressed`, async (t) => {
    const { outputFiles } = await build({
      stdin: { contents: `export * from "rpc-conn-pool${entry}";`, resolveDir: root },
      bundle: true,
      minify: true,
      platform: "node",
      format: "esm",
      external: ["@grpc/grpc-js", "@opentelemetry/api"],
      write: false,
    });
    const bytes = outputFiles.reduce((sum, { contents }) => sum + gzipSync(contents).length, 0);
    t.diagnostic(`${bytes} bytes`);
    assert.ok(bytes > 1_000, "there is something in it");
    assert.ok(bytes <= limit * 1_000, `${bytes} bytes`);
  });
}

test("the guide says how much each adds", () => {
  const guide = readFileSync(`${root}examples/README.md`, "utf8");
  const [core, ...others] = Object.entries(most);
  const said = [`the core ${core?.[1]} kB`, ...others.map(([entry, limit]) => `\`${entry}\` ${limit}`)].join(", ");
  assert.ok(guide.includes(`| ${said}, at most, minified and compressed |`), said);
});
