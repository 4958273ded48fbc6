import type { Socket } from "node:net";
import { ChannelCredentials } from "@grpc/grpc-js";

type CreateConnector = ChannelCredentials["_createSecureConnector"];

/**
 * The caller's credentials, with an eye on sockets: they behave as before, and know the sockets that one channel has open.
 *
 * A grpc-js channel that is closed while it connects leaves its socket open for as long as the peer stays silent,
 * and one that is closed later waits for the peer's FIN for ever. A pool that dials such a peer again and again
 * would run out of sockets. The connector of the credentials is the one place where grpc-js shows them (grpc-js-xds
 * extends the same methods).
 */
export class SocketTracking extends ChannelCredentials {
  readonly #inner: ChannelCredentials;
  readonly sockets: Set<Socket> = new Set();
  #destroyed = false;

  constructor(inner: ChannelCredentials) {
    super();
    this.#inner = inner;
  }

  override _isSecure(): boolean {
    return this.#inner._isSecure();
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(...args: Parameters<CreateConnector>): ReturnType<CreateConnector> {
    const inner = this.#inner._createSecureConnector(...args);
    return {
      connect: (socket) => {
        this.#add(socket);
        return inner.connect(socket);
      },
      waitForReady: () => inner.waitForReady(),
      getCallCredentials: () => inner.getCallCredentials(),
      destroy: () => inner.destroy(),
    };
  }

  /** Whether these are `credentials`; all that are insecure are the same. */
  standFor(credentials: ChannelCredentials): boolean {
    return this.#inner === credentials || !(this.#inner._isSecure() || credentials._isSecure());
  }

  /** Whether a socket is open. */
  get connected(): boolean {
    for (const socket of this.sockets) if (!socket.destroyed) return true;
    return false;
  }

  /** Destroys every socket that is open, and from now on each that still connects. */
  destroySockets(): void {
    this.#destroyed = true;
    for (const socket of this.sockets) socket.destroy();
  }

  #add(socket: Socket): void {
    this.sockets.add(socket);
    socket.once("close", () => this.sockets.delete(socket));
    if (this.#destroyed) socket.destroy();
  }
}
