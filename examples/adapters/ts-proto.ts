// What the clients of ts-proto run on, all four kinds of RPC, over a handle of a pool: of gRPC or of DRPC. Copy it. It is for
// --ts_proto_opt=outputServices=default,useAsyncIterable=true; without the second flag streams are Observables of rxjs.

import type { CallOptions, Conn, Rpc } from "rpc-conn-pool";

type Bytes = Rpc<Uint8Array, Uint8Array>;
const bytes = { requestSerialize: (data: Uint8Array) => data, responseDeserialize: (data: Uint8Array) => data };
const rpc = (service: string, method: string): Bytes => ({ path: `/${service}/${method}`, ...bytes });

/** `new GreeterClientImpl(rpcOver(pool.get(address)))`; `options` are those of each call. */
export function rpcOver(conn: Conn, options?: CallOptions) {
  return {
    request: (service: string, method: string, data: Uint8Array): Promise<Uint8Array> =>
      conn.invoke(rpc(service, method), data, options),
    async clientStreamingRequest(
      service: string,
      method: string,
      data: AsyncIterable<Uint8Array>,
    ): Promise<Uint8Array> {
      const answers: Uint8Array[] = [];
      for await (const answer of run(conn, rpc(service, method), data, options)) answers.push(answer);
      const [answer, another] = answers;
      if (answer === undefined || another !== undefined) throw new Error(`${method}: ${answers.length} responses`);
      return answer;
    },
    serverStreamingRequest: (service: string, method: string, data: Uint8Array): AsyncIterable<Uint8Array> =>
      run(conn, rpc(service, method), [data], options),
    bidirectionalStreamingRequest: (
      service: string,
      method: string,
      data: AsyncIterable<Uint8Array>,
    ): AsyncIterable<Uint8Array> => run(conn, rpc(service, method), data, options),
  };
}

/** Begins when its responses are read, sends meanwhile, and is cancelled when the reader leaves or `requests` throws. */
async function* run(
  conn: Conn,
  rpc: Bytes,
  requests: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: CallOptions | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const stream = await conn.newStream(rpc, options);
  let failed: { readonly error: unknown } | undefined;
  async function* watched() {
    try {
      yield* requests;
    } catch (error) {
      failed = { error };
      await stream.close();
    }
  }
  const send = async () => {
    for await (const request of watched()) await stream.send(request);
    await stream.closeSend();
  };
  send().catch(() => {}); // the reader hears of it
  try {
    yield* stream;
  } catch (error) {
    throw failed === undefined ? error : failed.error;
  }
}
