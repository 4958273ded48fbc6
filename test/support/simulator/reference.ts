/** A conn, as the reference knows it. */
interface RefConn {
  readonly id: number;
  readonly key: string;
  readonly slots: number;
  running: number;
  draining: string | undefined;
  /** Its peer is busy with a cancelled stream; the pool knows once it has asked. */
  blocked: boolean;
  asked: boolean;
  /** When it was last given back, and since when it has room beside what runs on it. */
  givenBack: number;
  roomSince: number;
}

interface RefDial {
  readonly key: string;
  /** Waiters that it will serve; infinite: nobody knows. */
  slots: number;
}

interface RefKey {
  lastSlots: number | undefined;
  hits: number;
  misses: number;
  dials: number;
  dialErrors: number;
  readonly closed: Record<string, number>;
}

export interface RefLimits {
  readonly capacity: number;
  readonly keyCapacity: number;
  readonly maxKeyConns: number;
  readonly maxKeyDials: number;
  readonly maxStreams: number;
}

/**
 * What a pool does, in lists and loops, for callers without filters and conns that tell of every change: no timers, no
 * callbacks, and no `maxConns`. It is meant to be plainly right, not fast.
 */
export class ReferencePool {
  readonly #limits: RefLimits;
  readonly #selection: "oldest" | "newest";
  conns: RefConn[] = [];
  dials: RefDial[] = [];
  /** Callers who wait, oldest first. */
  waiting: { readonly caller: number; readonly key: string }[] = [];
  /** Who holds which conn. */
  readonly held = new Map<number, number>();
  readonly failed = new Set<number>();
  /** Conns that were closed, with the reason. */
  readonly ends = new Map<number, string>();
  readonly keys = new Map<string, RefKey>();
  #clock = 0;

  constructor(limits: RefLimits, selection: "oldest" | "newest") {
    this.#limits = limits;
    this.#selection = selection;
  }

  acquire(caller: number, key: string): void {
    const known = this.#key(key);
    const conn = this.#waiters(key).length === 0 ? this.#pick(key) : undefined;
    if (conn !== undefined) {
      known.hits++;
      this.#grant(caller, conn);
      return;
    }
    known.misses++;
    this.waiting.push({ caller, key });
    this.#serve(key);
  }

  release(caller: number): void {
    const conn = this.conns.find(({ id }) => id === this.held.get(caller));
    this.held.delete(caller);
    if (conn === undefined) return; // it has died meanwhile
    const wasFull = conn.running >= this.#slots(conn);
    conn.running--;
    if (conn.draining !== undefined) {
      if (conn.running === 0) this.#close(conn, conn.draining);
      this.#serve(conn.key);
      return;
    }
    if (conn.running === 0) conn.givenBack = ++this.#clock;
    else if (wasFull) conn.roomSince = ++this.#clock;
    this.#serve(conn.key);
    this.#cap(conn);
  }

  abort(caller: number): void {
    const waiter = this.waiting.find((one) => one.caller === caller);
    if (waiter === undefined) return;
    this.waiting = this.waiting.filter((one) => one !== waiter);
    this.failed.add(caller);
    this.#serve(waiter.key);
  }

  /** The oldest dial of the key in flight brings a conn. */
  arrive(key: string, id: number, slots: number): void {
    const dial = this.dials.find((one) => one.key === key);
    if (dial === undefined) return;
    this.dials = this.dials.filter((one) => one !== dial);
    this.#add(id, key, slots);
  }

  /** Whether one dial is in flight for all who wait for the key. */
  failsAll(key: string): boolean {
    const [dial, other] = this.dials.filter((one) => one.key === key);
    return dial !== undefined && other === undefined && dial.slots >= this.#waiters(key).length;
  }

  /** The oldest dial of the key in flight fails: so do those that it was to serve. */
  fail(key: string): void {
    const dial = this.dials.find((one) => one.key === key);
    if (dial === undefined) return;
    this.#key(key).dialErrors++;
    this.dials = this.dials.filter((one) => one !== dial);
    const waiters = this.#waiters(key).slice(0, dial.slots);
    for (const { caller } of waiters) this.failed.add(caller);
    this.waiting = this.waiting.filter((one) => !waiters.includes(one));
    this.#serve(key);
  }

  die(id: number): void {
    this.#leave(id, "died", true);
  }

  goaway(id: number): void {
    this.#leave(id, "goaway", false);
  }

  block(id: number): void {
    const conn = this.conns.find((one) => one.id === id);
    if (conn !== undefined) conn.blocked = true;
  }

  unblock(id: number): void {
    const conn = this.conns.find((one) => one.id === id);
    if (conn === undefined) return;
    conn.blocked = false;
    if (!conn.asked) return;
    conn.asked = false;
    conn.roomSince = ++this.#clock;
    this.#serve(conn.key);
  }

  put(id: number, key: string, slots: number): void {
    this.#key(key);
    while (this.#places(key) >= this.#limits.maxKeyConns) {
      const [newest] = this.dials.filter((one) => one.key === key).reverse();
      const [oldest] = this.#idle(key);
      if (newest !== undefined) this.dials = this.dials.filter((one) => one !== newest);
      else if (oldest !== undefined) {
        this.#close(oldest, "evicted");
        this.#forget(); // it may have been the last of its key, whose counters go then
      } else {
        this.#count(key, "evicted");
        this.ends.set(id, "evicted");
        this.#forget();
        return;
      }
    }
    this.#add(id, key, slots);
  }

  /** The conn that is the caller's from now on. */
  take(key: string): number | undefined {
    for (const conn of this.#idle(key)) {
      if (conn.asked) continue;
      if (conn.blocked) {
        conn.asked = true;
        continue;
      }
      this.conns = this.conns.filter((one) => one !== conn);
      this.#serve(key);
      return conn.id;
    }
    return undefined;
  }

  clear(key: string | undefined): void {
    const keys = key === undefined ? [...this.keys.keys()] : [key];
    this.dials = this.dials.filter((one) => !keys.includes(one.key));
    for (const conn of this.conns.filter((one) => keys.includes(one.key))) this.#drain(conn, "cleared");
    for (const one of keys) this.#serve(one);
  }

  /** What `stats(key)` should say. */
  stats(key: string): Record<string, number> {
    const open = this.conns.filter((conn) => conn.key === key);
    const { hits, misses, dials, dialErrors, closed } = this.keys.get(key) ?? newKey();
    const ready = open.filter(({ draining }) => draining === undefined);
    return {
      open: open.length,
      dialing: this.dials.filter((one) => one.key === key).length,
      idle: ready.filter(({ running }) => running === 0).length,
      leased: ready.filter(({ running }) => running > 0).length,
      draining: open.length - ready.length,
      blocked: ready.filter(({ asked }) => asked).length,
      streams: open.reduce((sum, { running }) => sum + running, 0),
      waiting: this.#waiters(key).length,
      hits,
      misses,
      dials,
      dialErrors,
      ...closed,
    };
  }

  #key(key: string): RefKey {
    const known = this.keys.get(key) ?? newKey();
    this.keys.set(key, known);
    return known;
  }

  #waiters(key: string): { readonly caller: number; readonly key: string }[] {
    return this.waiting.filter((waiter) => waiter.key === key);
  }

  #slots({ slots }: RefConn): number {
    return Math.min(slots, this.#limits.maxStreams);
  }

  #places(key: string): number {
    const open = this.conns.filter((conn) => conn.key === key && conn.draining === undefined);
    return open.length + this.dials.filter((dial) => dial.key === key).length;
  }

  #idle(key?: string): RefConn[] {
    return this.conns
      .filter((conn) => (key ?? conn.key) === conn.key && conn.running === 0 && conn.draining === undefined)
      .sort((a, b) => a.givenBack - b.givenBack);
  }

  /** A free conn: those that run streams first, then idle ones; blocked ones are asked, and passed over. */
  #pick(key: string): RefConn | undefined {
    const ready = this.conns.filter((conn) => conn.key === key && conn.draining === undefined && !conn.asked);
    const roomy = ready
      .filter((conn) => conn.running > 0 && conn.running < this.#slots(conn))
      .sort((a, b) => a.roomSince - b.roomSince);
    const idle = this.#idle(key).filter((conn) => !conn.asked && this.#slots(conn) > 0);
    const order = this.#selection === "oldest" ? [...roomy, ...idle] : [...roomy.reverse(), ...idle.reverse()];
    for (const conn of order) {
      if (!conn.blocked) return conn;
      conn.asked = true;
    }
    return undefined;
  }

  #grant(caller: number, conn: RefConn): void {
    this.held.set(caller, conn.id);
    if (conn.running === 0) conn.roomSince = ++this.#clock;
    conn.running++;
  }

  #add(id: number, key: string, slots: number): void {
    const conn: RefConn = {
      id,
      key,
      slots,
      running: 0,
      draining: undefined,
      blocked: false,
      asked: false,
      givenBack: ++this.#clock,
      roomSince: 0,
    };
    this.conns.push(conn);
    const known = this.#key(key);
    known.lastSlots = this.#slots(conn);
    for (const dial of this.dials) {
      if (dial.key === key && dial.slots === Number.POSITIVE_INFINITY) dial.slots = this.#expected(key);
    }
    this.#serve(key);
    this.#cap(conn);
  }

  #expected(key: string): number {
    const known = this.#key(key).lastSlots ?? (this.#limits.maxStreams === 1 ? 1 : Number.POSITIVE_INFINITY);
    return Math.max(known, 1);
  }

  /** Hands out what is free, dials what is missing, and abandons what is too much. */
  #serve(key: string): void {
    for (const waiter of this.#waiters(key)) {
      const conn = this.#pick(key);
      if (conn === undefined) break;
      this.waiting = this.waiting.filter((one) => one !== waiter);
      this.#grant(waiter.caller, conn);
    }
    const ofKey = (): RefDial[] => this.dials.filter((dial) => dial.key === key);
    const promised = (): number => ofKey().reduce((sum, { slots }) => sum + slots, 0);
    const wanted = this.#waiters(key).length;
    const { maxKeyConns, maxKeyDials } = this.#limits;
    const may = (): boolean => ofKey().length < maxKeyDials && this.#places(key) < maxKeyConns;
    while (wanted > promised() && may()) {
      this.dials.push({ key, slots: this.#expected(key) });
      this.#key(key).dials++;
    }
    for (const dial of ofKey().reverse()) {
      const others = ofKey().filter((one) => one !== dial);
      if (others.reduce((sum, { slots }) => sum + slots, 0) < wanted) continue;
      this.dials = this.dials.filter((one) => one !== dial);
    }
    this.#forget();
  }

  /** A conn that has just become idle may be one too many. */
  #cap(conn: RefConn): void {
    if (!this.conns.includes(conn) || conn.running > 0) return;
    while (this.#idle(conn.key).length > this.#limits.keyCapacity) this.#evict(this.#idle(conn.key)[0]);
    while (this.#idle().length > this.#limits.capacity) this.#evict(this.#idle()[0]);
  }

  #evict(conn: RefConn | undefined): void {
    if (conn === undefined) return;
    this.#close(conn, "evicted");
    this.#serve(conn.key);
  }

  #leave(id: number, reason: string, dead: boolean): void {
    const conn = this.conns.find((one) => one.id === id);
    if (conn === undefined) return;
    if (dead) this.#close(conn, conn.draining ?? reason);
    else this.#drain(conn, reason);
    this.#serve(conn.key);
  }

  #drain(conn: RefConn, reason: string): void {
    conn.draining ??= reason;
    conn.asked = false;
    if (conn.running === 0) this.#close(conn, conn.draining);
  }

  #close(conn: RefConn, reason: string): void {
    this.conns = this.conns.filter((one) => one !== conn);
    this.ends.set(conn.id, reason);
    this.#count(conn.key, reason);
  }

  #count(key: string, reason: string): void {
    const { closed } = this.#key(key);
    closed[`closed ${reason}`] = (closed[`closed ${reason}`] ?? 0) + 1;
  }

  /** Forgets a key that has no conn, dial or waiter. */
  #forget(): void {
    const known = [...this.keys.keys()];
    for (const key of known) {
      const used = [...this.conns, ...this.dials, ...this.waiting].some((one) => one.key === key);
      if (!used) this.keys.delete(key);
    }
  }
}

const newKey = (): RefKey => ({ lastSlots: undefined, hits: 0, misses: 0, dials: 0, dialErrors: 0, closed: {} });
