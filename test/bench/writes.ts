import type { Socket } from "node:net";

/** Counts what sockets write: Node hands one request to the system for each `_write` or `_writev`. */
export class WriteCount {
  count = 0;

  watch(socket: Socket): void {
    const write = socket._write.bind(socket);
    socket._write = (...args) => {
      this.count++;
      write(...args);
    };
    const writev = socket._writev?.bind(socket);
    if (writev === undefined) return;
    socket._writev = (...args) => {
      this.count++;
      writev(...args);
    };
  }
}
