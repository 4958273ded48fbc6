import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { type ChannelOptions, Client, credentials, type MethodDefinition, type requestCallback } from "@grpc/grpc-js";

/** What a caller wants of the server. */
export interface Ask {
  /** Milliseconds that the answer takes, for which the server does nothing. */
  readonly delayMs: number;
  /** The answer's size. */
  readonly bytes: number;
}

const asIs = (bytes: Buffer): Buffer => bytes;

export const answer: MethodDefinition<Ask, Buffer> = {
  path: "/bench.Answerer/Answer",
  requestStream: false,
  responseStream: false,
  requestSerialize: ({ delayMs, bytes }) => {
    const request = Buffer.alloc(8);
    request.writeUInt32LE(delayMs, 0);
    request.writeUInt32LE(bytes, 4);
    return request;
  },
  requestDeserialize: (request) => ({ delayMs: request.readUInt32LE(0), bytes: request.readUInt32LE(4) }),
  responseSerialize: asIs,
  responseDeserialize: asIs,
};

/** As generated code has it. */
export class AnswererClient extends Client {
  answer(ask: Ask, callback: requestCallback<Buffer>): void {
    this.makeUnaryRequest(answer.path, answer.requestSerialize, answer.responseDeserialize, ask, callback);
  }
}

export const insecure = credentials.createInsecure();

/** Otherwise grpc-js shares one connection among all channels to an address. */
export const ownConnection: ChannelOptions = { "grpc.use_local_subchannel_pool": 1 };

/** Where the servers listen: one allows 100 calls at once on a connection, the other as many as one likes. */
export interface Addresses {
  readonly limited: string;
  readonly unlimited: string;
}

/** The servers' process, which ends with this one. */
export class Answerer implements AsyncDisposable {
  readonly addresses: Addresses;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, addresses: Addresses) {
    this.#child = child;
    this.addresses = addresses;
  }

  static async start(): Promise<Answerer> {
    const child = fork(fileURLToPath(new URL("./answerer-process.js", import.meta.url)), { execArgv: [] });
    const [addresses] = await once(child, "message");
    return new Answerer(child, addresses);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exit = once(this.#child, "exit");
    this.#child.disconnect();
    await exit;
  }
}
