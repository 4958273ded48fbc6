import type { PoolConn } from "../contract.ts";
import { attempt } from "../runtime/guard.ts";

interface BoundMethod {
  readonly method: unknown;
  readonly bound: unknown;
}

/**
 * A conn to one address of a service. The pool holds `conn`: the dialed conn in every respect, except that it can be told
 * to leave (`draining`, `onChange`), and that its tags name the address.
 */
export class Member<C extends PoolConn> {
  readonly conn: C;
  readonly #inner: C;
  readonly #address: string;
  readonly #listeners: (() => void)[] = [];
  readonly #bound = new Map<PropertyKey, BoundMethod>();
  #left = false;
  #closing = false;

  constructor(inner: C, address: string) {
    this.#inner = inner;
    this.#address = address;
    this.conn = this.#wrap();
  }

  /** Whether it takes new streams, as far as is known. */
  get takesStreams(): boolean {
    return !this.#closing && !this.#draining();
  }

  /** Whether somebody on this side has closed it or told it to leave: its end is no loss. */
  get dismissed(): boolean {
    return this.#closing || this.#left;
  }

  /** It takes no new streams from now on; the pool closes it when its last one has ended. Idempotent. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    for (const listener of this.#listeners) listener();
  }

  /** Calls `listener` at each change that the conn tells of. */
  watch(listener: () => void): void {
    attempt(() => this.#inner.onChange?.(listener));
  }

  #draining(): boolean {
    return this.#left || attempt(() => this.#inner.draining) === true;
  }

  #onChange = (listener: () => void): void => {
    this.#listeners.push(listener);
    this.#inner.onChange?.(listener);
  };

  #close = (): unknown => {
    this.#closing = true;
    return this.#inner.close();
  };

  /**
   * Everything is read from the dialed conn at each access, so that optional members that change stay live. Its methods run
   * with the conn itself as `this`: those of classes with private fields could not run on another object.
   */
  #wrap(): C {
    const inner = this.#inner;
    const bare: C = Object.create(null); // nothing of its own, so that no invariant of proxies stands in the way
    return new Proxy(bare, {
      get: (_, name) => this.#read(name),
      has: (_, name) => name === "draining" || name === "onChange" || name === "tags" || name in inner,
      set: (_, name, value) => Reflect.set(inner, name, value, inner),
      defineProperty: (_, name, property) => Reflect.defineProperty(inner, name, property),
      deleteProperty: (_, name) => Reflect.deleteProperty(inner, name),
      getPrototypeOf: () => Reflect.getPrototypeOf(inner),
      ownKeys: () => Reflect.ownKeys(inner),
      getOwnPropertyDescriptor: (_, name) => {
        const property = Reflect.getOwnPropertyDescriptor(inner, name);
        return property && { ...property, configurable: true };
      },
    });
  }

  #read(name: PropertyKey): unknown {
    switch (name) {
      case "draining":
        return this.#left || this.#inner.draining;
      case "onChange":
        return this.#onChange;
      case "close":
        return this.#close;
      case "tags":
        return { address: this.#address, ...this.#inner.tags };
    }
    const value: unknown = Reflect.get(this.#inner, name, this.#inner);
    return typeof value === "function" ? this.#bind(name, value) : value;
  }

  /** The same function at each access, as a conn's own method is. */
  // biome-ignore lint/complexity/noBannedTypes: any function at all
  #bind(name: PropertyKey, method: Function): unknown {
    const known = this.#bound.get(name);
    if (known?.method === method) return known.bound;
    const bound: unknown = method.bind(this.#inner);
    this.#bound.set(name, { method, bound });
    return bound;
  }
}
