import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** What becomes of the bytes that pass. Nothing said: they pass as they come. */
export interface Weather {
  /** Each piece arrives so much later, and up to `jitterMs` more; never out of order. */
  readonly latencyMs?: number;
  readonly jitterMs?: number;
  /** Of each conn, each way. */
  readonly bytesPerMs?: number;
  /** One byte in so many of what the server sends is another one. */
  readonly corruptEach?: number;
  /** New conns reach the server so much later; to the client they are open at once. */
  readonly acceptMs?: number;
  /** How new conns end, as soon as they come. */
  readonly turnsAway?: "cut" | "reset";
}

/** So much may be on its way in one direction before the sender is held. */
const mostOnItsWay = 1 << 16;

/** One conn through the proxy. */
export class Link {
  readonly client: Socket;
  readonly server: Socket;
  readonly #proxy: FaultProxy;
  #isDead = false;
  #isStopped = false;

  constructor(client: Socket, server: Socket, proxy: FaultProxy) {
    this.client = client;
    this.server = server;
    this.#proxy = proxy;
    this.#carry(client, server, (bytes) => bytes);
    this.#carry(server, client, (bytes) => this.#proxy.corrupt(bytes));
  }

  /** Both ends see the end of the conn at once. */
  cut(): void {
    this.client.destroy();
    this.server.destroy();
  }

  reset(): void {
    this.client.resetAndDestroy();
    this.server.resetAndDestroy();
  }

  /** Half-open: nothing arrives any more, either way, and neither end is told. A client that gives up is not heard. */
  die(): void {
    this.#isDead = true;
  }

  /** The client reads that the server has ended its side. What it sends still arrives; it gets no answer. */
  finish(): void {
    this.#isDead = true;
    this.client.end();
  }

  /** The client gets so many bytes that the server did not send. */
  garble(bytes: number): void {
    if (this.client.writable) this.client.write(Buffer.alloc(bytes, 0xff));
  }

  /** As where a process or a path stands still: nothing is lost, nothing arrives before `go`. */
  stop(): void {
    this.#isStopped = true;
    this.client.pause();
    this.server.pause();
  }

  go(): void {
    this.#isStopped = false;
    this.client.resume();
    this.server.resume();
  }

  get isOpen(): boolean {
    return !this.client.destroyed;
  }

  #carry(from: Socket, to: Socket, change: (bytes: Buffer) => Buffer): void {
    let freeAt = 0;
    let size = 0;
    const onItsWay: Buffer[] = [];
    const arrive = (): void => {
      const bytes = onItsWay.shift() ?? Buffer.alloc(0);
      size -= bytes.length;
      if (!this.#isStopped) from.resume();
      if (!this.#isDead && to.writable) to.write(change(bytes));
    };
    from.on("error", () => {});
    from.on("data", (bytes) => {
      if (this.#isDead) return;
      const { latencyMs = 0, jitterMs = 0, bytesPerMs = Number.POSITIVE_INFINITY } = this.#proxy.weather;
      const now = performance.now();
      const laterMs = latencyMs + this.#proxy.random() * jitterMs;
      freeAt = Math.max(freeAt, now + laterMs) + bytes.length / bytesPerMs;
      size += bytes.length;
      if (onItsWay.push(bytes) > 1 || freeAt > now) setTimeout(arrive, freeAt - now);
      else arrive();
      if (size > mostOnItsWay) from.pause();
    });
    // A half-open server must not learn that its client has gone, but then nothing is left to keep.
    from.on("end", () => (this.#isDead ? this.cut() : to.end()));
    from.on("close", () => to.destroy());
  }
}

/** A TCP proxy in front of a server of 127.0.0.1, which does to conns what networks do. */
export class FaultProxy implements AsyncDisposable {
  weather: Weather = {};
  /** Conns that have come. */
  accepted = 0;
  readonly links = new Set<Link>();
  readonly #serverPort: number;
  readonly #server: Server;
  #port = 0;
  #seed: number;

  private constructor(serverPort: number, seed: number) {
    this.#serverPort = serverPort;
    this.#seed = seed;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => void this.#accept(client));
  }

  static async start(serverPort: number, seed = 1): Promise<FaultProxy> {
    for (;;) {
      const proxy = new FaultProxy(serverPort, seed);
      // Below the ports that systems give away by themselves: only another proxy may take it while new conns are refused.
      proxy.#port = 10_000 + Math.floor(Math.random() * 20_000);
      if (await proxy.#tryListen()) return proxy;
    }
  }

  /** Where clients connect; it stays the same. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** New conns are refused, until `listen`. Those that are open stay. */
  refuse(): void {
    this.#server.close();
  }

  async listen(): Promise<void> {
    while (!(await this.#tryListen())) await sleep(20);
  }

  async #tryListen(): Promise<boolean> {
    this.#server.listen(this.#port, "127.0.0.1");
    return once(this.#server, "listening").then(
      () => true,
      () => false,
    );
  }

  /** From 0 to 1, the same numbers for the same seed. */
  random(): number {
    this.#seed = (this.#seed * 48_271) % 2_147_483_647;
    return this.#seed / 2_147_483_647;
  }

  corrupt(bytes: Buffer): Buffer {
    const { corruptEach } = this.weather;
    if (corruptEach === undefined) return bytes;
    const changed = Buffer.from(bytes);
    for (let i = 0; i < changed.length; i++) {
      if (this.random() * corruptEach < 1) changed[i] = Math.floor(this.random() * 256);
    }
    return changed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const link of this.links) link.cut();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  async #accept(client: Socket): Promise<void> {
    this.accepted++;
    client.on("error", () => {});
    const { turnsAway, acceptMs } = this.weather;
    if (turnsAway === "cut") return void client.destroy();
    if (turnsAway === "reset") return void client.resetAndDestroy();
    if (acceptMs !== undefined) await new Promise((resolve) => setTimeout(resolve, acceptMs));
    const server = connect({ port: this.#serverPort, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
    const link = new Link(client, server, this);
    this.links.add(link);
    server.on("close", () => this.links.delete(link));
  }
}
