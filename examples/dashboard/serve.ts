import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { View } from "./view.ts";

export interface DashboardOptions {
  /** Default: any free port. */
  readonly port?: number;
  /** Milliseconds between two pictures. Default 1,000. */
  readonly everyMs?: number;
}

/** A dashboard that is served. */
export interface Dashboard extends AsyncDisposable {
  readonly url: string;
  close(): Promise<void>;
}

/** Compiled programs are elsewhere; the page's files stay beside their source. */
const folder = new URL(".", import.meta.url.replace("/.build/examples/", "/examples/"));

const files: Readonly<Record<string, readonly [name: string, type: string]>> = {
  "/": ["page.html", "text/html"],
  "/page.js": ["page.js", "text/javascript"],
  "/page.css": ["page.css", "text/css"],
};

/** Nothing but the page's own files runs, is loaded or is asked. */
const headers = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:",
  "x-content-type-options": "nosniff",
  "cache-control": "no-store",
};

/**
 * Serves one page over some pools, to this machine only. While nobody looks at it, the pools are neither listened to nor asked.
 * `/events` has what the page draws, as server-sent events.
 */
export async function serveDashboard(views: readonly View[], options: DashboardOptions = {}): Promise<Dashboard> {
  const { port = 0, everyMs = 1_000 } = options;
  const viewers = new Set<ServerResponse>();
  let stops: (() => void)[] = [];
  let timer: NodeJS.Timeout | undefined;

  const send = (): void => {
    const event = `data: ${JSON.stringify(views.map((view) => view.snapshot()))}\n\n`;
    for (const viewer of viewers) viewer.write(event);
  };
  const leave = (viewer: ServerResponse): void => {
    viewers.delete(viewer);
    if (viewers.size > 0) return;
    clearInterval(timer);
    for (const stop of stops.splice(0)) stop();
  };
  const join = (viewer: ServerResponse): void => {
    viewer.writeHead(200, { ...headers, "content-type": "text/event-stream" });
    viewer.on("close", () => leave(viewer));
    viewers.add(viewer);
    if (viewers.size === 1) {
      stops = views.map((view) => view.watch());
      timer = setInterval(send, everyMs);
    }
    send();
  };

  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://localhost");
    const answer = (status: number, type: string, body: string | Buffer): void => {
      response.writeHead(status, { ...headers, "content-type": `${type}; charset=utf-8` }).end(body);
    };
    // A page of elsewhere that has its own name point here would be a stranger at this machine.
    const isHere = /^(localhost|127\.0\.0\.1)(:\d+)?$/.test(request.headers.host ?? "");
    const file = files[pathname];
    if (!isHere) answer(403, "text/plain", "ask for localhost or 127.0.0.1");
    else if (request.method !== "GET") answer(405, "text/plain", "only GET is answered");
    else if (file !== undefined) answer(200, file[1], readFileSync(new URL(file[0], folder)));
    else if (pathname === "/events") join(response);
    else if (pathname === "/explain") {
      const view = views[Number(searchParams.get("pool"))];
      const text = view?.explain(Number(searchParams.get("key")));
      answer(text === undefined ? 404 : 200, "text/plain", text ?? "this key has nothing any more");
    } else answer(404, "text/plain", "there is /, /events and /explain");
  });
  await once(server.listen(port, "127.0.0.1"), "listening");

  const close = async (): Promise<void> => {
    for (const viewer of viewers) viewer.end();
    server.close();
    server.closeAllConnections();
    if (server.listening) await once(server, "close");
  };
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  return { url, close, [Symbol.asyncDispose]: close };
}
