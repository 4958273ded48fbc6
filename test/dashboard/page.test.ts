import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { request } from "node:http";
import { after, before, describe, type TestContext, test } from "node:test";
import { type Browser, chromium, type Page } from "playwright-core";
import { Pool } from "rpc-conn-pool";
import { type ScriptedConn, scriptedDial } from "rpc-conn-pool/testing";
import { type Dashboard, serveDashboard } from "../../examples/dashboard/serve.ts";
import { view } from "../../examples/dashboard/view.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

const hostile = `<img src="x" onerror="document.title='owned'">`;

/** A pool with two keys, one of them with a hostile name, and its dashboard. */
async function served(t: TestContext) {
  const pool = new Pool<string, ScriptedConn>({
    name: "<b>pool</b>",
    maxKeyConns: 2,
    dial: scriptedDial({ maxStreams: 2 }),
  });
  const dashboard = await serveDashboard([view(pool)], { everyMs: 50 });
  t.after(() => Promise.all([dashboard.close(), pool.close({ graceMs: 0 })]));
  for (const key of [hostile, "b", "b", "b"]) await pool.acquire(key);
  return { pool, dashboard };
}

/** What the server answers, whatever is asked and in whosever name. */
function ask({ url }: Dashboard, path: string, headers: Record<string, string> = {}, method = "GET") {
  return new Promise<{ status: number | undefined; headers: NodeJS.Dict<string | string[]>; body: string }>(
    (resolve, reject) => {
      request(new URL(path, url), { headers, method }, (response) => {
        let body = "";
        response.on("data", (chunk) => (body += String(chunk)));
        response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, body }));
      })
        .on("error", reject)
        .end();
    },
  );
}

describe("the dashboard's server", () => {
  test("serves the page to this machine alone, and nothing else", async (t) => {
    const { dashboard } = await served(t);
    const page = await ask(dashboard, "/");
    assert.equal(page.status, 200);
    assert.match(String(page.headers["content-security-policy"]), /^default-src 'none'; script-src 'self';/);
    for (const path of ["/page.js", "/page.css"]) assert.equal((await ask(dashboard, path)).status, 200, path);
    for (const path of ["/nothing", "/../package.json", "/%2e%2e/package.json", "/page.html"]) {
      assert.equal((await ask(dashboard, path)).status, 404, path);
    }
    assert.equal((await ask(dashboard, "/", { host: "evil.example" })).status, 403);
    assert.equal((await ask(dashboard, "/", {}, "POST")).status, 405);
    for (const query of ["", "?pool=9&key=1", "?pool=0&key=99", "?pool=__proto__&key=1"]) {
      assert.equal((await ask(dashboard, `/explain${query}`)).status, 404, query);
    }
  });

  test("listens to the pool only while somebody looks", async (t) => {
    await using pool = new Pool({ dial: scriptedDial() });
    let listeners = 0;
    const on = pool.on.bind(pool);
    pool.on = (name, listener) => {
      listeners++;
      const stop = on(name, listener);
      return () => {
        listeners--;
        stop();
      };
    };
    const dashboard = await serveDashboard([view(pool)], { everyMs: 5 });
    t.after(() => dashboard.close());
    assert.equal(listeners, 0);
    const looking = new AbortController();
    const response = await fetch(new URL("events", dashboard.url), { signal: looking.signal });
    const reader = response.body?.getReader();
    await reader?.read();
    assert.ok(listeners > 0);
    looking.abort();
    while (listeners > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });
});

/** Runs in the page: the least contrast of text to its card, and by how much the page is wider than the window. */
const measure = `(() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => {
      const c = part / 255;
      return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const styleOf = (selector) => getComputedStyle(document.querySelector(selector));
  const card = luminance(styleOf(".card").backgroundColor);
  const contrasts = [".now", "h3", "td button", "th", ".highest"].map((selector) => {
    const text = luminance(styleOf(selector).color);
    return (Math.max(text, card) + 0.05) / (Math.min(text, card) + 0.05);
  });
  const { scrollWidth, clientWidth } = document.documentElement;
  return { contrast: Math.min(...contrasts), overflow: scrollWidth - clientWidth };
})()`;

const executablePath = ["chromium", "chromium-browser", "google-chrome"]
  .flatMap((name) => ["/usr/bin/", "/usr/local/bin/", "/snap/bin/"].map((folder) => folder + name))
  .find((path) => existsSync(path));
const skip = executablePath === undefined ? "there is no Chromium here: `apt-get install chromium`" : false;

describe("the dashboard's page in Chromium", { skip, timeout: 120_000 }, () => {
  let browser: Browser;
  before(async () => {
    browser = await chromium.launch({ executablePath: executablePath ?? "", args: ["--no-sandbox"] });
  });
  after(() => browser.close());

  /** A page that has drawn at least one picture; what it logs is an error. */
  async function open(t: TestContext, url: string, colorScheme: "dark" | "light", width: number): Promise<Page> {
    const page = await browser.newPage({ colorScheme, viewport: { width, height: 800 } });
    t.after(() => page.close());
    const wrong: string[] = [];
    page.on("console", (message) => void wrong.push(message.text()));
    page.on("pageerror", (error) => void wrong.push(String(error)));
    t.after(() => assert.deepEqual(wrong, []));
    await page.goto(url);
    await page.getByText("live, one picture a second").waitFor();
    return page;
  }

  test("shows keys, conns, streams and waiters, and what comes later", async (t) => {
    const { pool, dashboard } = await served(t);
    const page = await open(t, dashboard.url, "light", 1_200);
    const row = page.getByRole("row").filter({ hasText: /^b/ });
    assert.deepEqual((await row.getByRole("cell").allTextContents()).slice(0, 4), ["b", "", "3", "0"]);
    assert.equal(await row.locator("i.used").count(), 2);
    const leases = [await pool.acquire("b")];
    const waiting = pool.acquire("b");
    await page.getByRole("row").filter({ hasText: /^b41/ }).waitFor();
    assert.match((await page.locator("article").first().textContent()) ?? "", /waiting 1/);
    for (const lease of leases) lease.release();
    (await waiting).release();
    pool.clear(hostile);
    await page.locator("i.draining").first().waitFor();
  });

  test("names are text, never HTML, and a click on a key explains it", async (t) => {
    const { dashboard } = await served(t);
    const page = await open(t, dashboard.url, "dark", 1_200);
    assert.equal(await page.getByRole("heading", { level: 2 }).first().textContent(), "<b>pool</b>");
    // Not `click`, which waits until the element rests: on a busy machine the page draws it anew before that.
    await page.getByRole("button", { name: hostile }).dispatchEvent("click");
    const dialog = page.getByRole("dialog");
    await dialog.waitFor();
    assert.equal(await dialog.getByRole("heading").textContent(), hostile);
    const { body } = await ask(dashboard, "/explain?pool=0&key=1");
    assert.ok(body.includes("1 of 2"), body);
    assert.equal((await dialog.locator("pre").textContent())?.split("\n").length, body.split("\n").length);
    assert.equal(await page.locator("img").count(), 0);
    assert.equal(await page.title(), "Pools");
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
  });

  for (const colorScheme of ["dark", "light"] as const) {
    for (const width of [1_280, 390]) {
      test(`is readable in ${colorScheme}, ${width} pixels wide, and scrolls one way only`, async (t) => {
        const { dashboard } = await served(t);
        const page = await open(t, dashboard.url, colorScheme, width);
        const { contrast, overflow } = await page.evaluate<{ contrast: number; overflow: number }>(measure);
        assert.ok(contrast >= 4.5, `contrast ${contrast}`);
        assert.equal(overflow, 0);
      });
    }
  }

  test("says when the process does not answer any more", async (t) => {
    await using pool = new Pool();
    const dashboard = await serveDashboard([view(pool)], { everyMs: 50 });
    const page = await browser.newPage();
    t.after(() => page.close());
    await page.goto(dashboard.url);
    await page.getByText("live").waitFor();
    await dashboard.close();
    await page.getByText("the process does not answer; trying again").waitFor();
  });
});
