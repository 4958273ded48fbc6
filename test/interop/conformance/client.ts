// The client that Connect's conformance suite tests: it reads calls to make from its input, makes them over the transport that
// its first argument names, and writes what became of them. The second argument is the folder of the suite's protos.
// https://github.com/connectrpc/conformance/blob/main/docs/testing_clients.md
import { setTimeout as sleep } from "node:timers/promises";
import {
  type ChannelCredentials,
  type ClientDuplexStream,
  type ClientOptions,
  type ClientReadableStream,
  type ClientUnaryCall,
  type ClientWritableStream,
  credentials,
  Client as GrpcClient,
  Metadata,
  type ServiceError,
  type StatusObject,
} from "@grpc/grpc-js";
import { loadSync, type MessageTypeDefinition, type ServiceDefinition } from "@grpc/proto-loader";
import { dialGrpc, dialGrpcHttp2, type GrpcConn, type GrpcHttp2Conn, pooledChannel } from "../../../src/grpc/index.ts";
import { Pool } from "../../../src/index.ts";
import type { Ask, ProtoHeader, Reply, Result, RpcError } from "./messages.ts";

const [transport = "grpc-js", protos = ""] = process.argv.slice(2);

const own = "connectrpc.conformance.v1";
const loaded = loadSync(
  [`${own.replaceAll(".", "/")}/client_compat.proto`, `${own.replaceAll(".", "/")}/service.proto`],
  {
    includeDirs: [protos],
    keepCase: true,
  },
);
const service = loaded[`${own}.ConformanceService`] as ServiceDefinition;
/** Its types are as the suite's protos have it. */
function typeOf<T>(name: string): MessageTypeDefinition<T, T> {
  return Object(loaded)[`${own}.${name}`];
}
const askType = typeOf<Ask>("ClientCompatRequest");
const replyType = typeOf<Reply>("ClientCompatResponse");
/** The same fields as google.rpc.Status. */
const errorType = typeOf<RpcError>("Error");

const asIs = (bytes: Buffer): Buffer => bytes;
const compressions: Readonly<Record<number, 1 | 2>> = { 2: 2, 5: 1 };
const fullDuplex = 5;

const clients = new Map<string, GrpcClient>();
const closing: (() => Promise<void>)[] = [];

/** One client for all calls to the same server with the same options. */
function clientFor(ask: Ask): GrpcClient {
  const address = `${ask.host}:${ask.port}`;
  const options: ClientOptions = {
    "grpc.max_receive_message_length": ask.message_receive_limit || -1,
    "grpc.default_compression_algorithm": compressions[ask.compression ?? 0] ?? 0,
  };
  const tls = ask.server_tls_cert;
  const name = JSON.stringify([address, options, tls, ask.client_tls_creds]);
  let client = clients.get(name);
  if (client !== undefined) return client;
  const { key = null, cert = null } = ask.client_tls_creds ?? {};
  const secret = tls?.length ? credentials.createSsl(tls, key, cert) : credentials.createInsecure();
  client = new GrpcClient(address, secret, { ...options, ...channelTo(address, secret, options) });
  clients.set(name, client);
  return client;
}

function channelTo(address: string, secret: ChannelCredentials, options: ClientOptions): ClientOptions {
  if (transport === "dialGrpcHttp2") return overPool(new Pool({ dial: dialGrpcHttp2(secret, options) }), address);
  if (transport === "dialGrpc") return overPool(new Pool({ dial: dialGrpc(secret, options) }), address);
  return {};
}

function overPool<C extends GrpcConn | GrpcHttp2Conn>(pool: Pool<string, C>, address: string): ClientOptions {
  closing.push(() => pool.close({ graceMs: 0 }));
  return { channelOverride: pooledChannel(pool, address) };
}

type Call =
  | ClientUnaryCall
  | ClientReadableStream<object>
  | ClientWritableStream<Buffer>
  | ClientDuplexStream<Buffer, object>;

function isWritable(call: Call): call is Extract<Call, { end(): unknown }> {
  return "write" in call;
}

/** Makes the call that `ask` describes, and resolves with what its caller saw. */
async function make(ask: Ask): Promise<Result> {
  const method = service[ask.method ?? ""];
  if (method === undefined) throw new Error(`there is no method ${ask.method}`);
  const { path, requestStream, responseStream, responseDeserialize } = method;
  const requests = (ask.request_messages ?? []).map(({ value }) => value ?? Buffer.alloc(0));
  const result: Result & { payloads: object[] } = { payloads: [] };
  let over = false;
  const receive = (message: { payload?: object }): void => {
    result.payloads.push(message.payload ?? {});
    if (result.payloads.length === ask.cancel?.after_num_responses) call.cancel();
  };
  const answered = (error: ServiceError | null, answer?: object): void => {
    if (answer !== undefined && ask.method !== "Unimplemented") receive(answer);
    if (error !== null) fail(error);
  };
  const fail = (error: ServiceError): void => {
    result.error = errorOf(error);
  };
  const callOptions = ask.timeout_ms === undefined ? {} : { deadline: Date.now() + ask.timeout_ms };
  const client = clientFor(ask);
  const common = [metadataOf(ask.request_headers), callOptions] as const;
  const [only = Buffer.alloc(0)] = requests;
  const call: Call =
    requestStream && responseStream
      ? client.makeBidiStreamRequest(path, asIs, responseDeserialize, ...common)
      : requestStream
        ? client.makeClientStreamRequest(path, asIs, responseDeserialize, ...common, answered)
        : responseStream
          ? client.makeServerStreamRequest(path, asIs, responseDeserialize, only, ...common)
          : client.makeUnaryRequest(path, asIs, responseDeserialize, only, ...common, answered);
  if (responseStream) call.on("data", receive).on("error", fail);
  call.on("metadata", (metadata: Metadata) => {
    result.response_headers = headersOf(metadata);
  });
  const ended = new Promise<void>((resolve) => {
    call.on("status", ({ metadata }: StatusObject) => {
      result.response_trailers = headersOf(metadata);
      over = true;
      resolve();
    });
  });
  if (isWritable(call)) {
    let unsent = requests.length;
    for (const request of requests) {
      await sleep(ask.request_delay_ms ?? 0);
      if (over) break;
      const had = result.payloads.length;
      call.write(request);
      unsent--;
      const answer = (): boolean => over || result.payloads.length > had;
      if (ask.stream_type === fullDuplex) while (!answer()) await sleep(1);
    }
    result.num_unsent_requests = unsent;
    if (ask.cancel?.before_close_send) call.cancel();
    else call.end();
  }
  const wait = ask.cancel?.after_close_send_ms;
  if (wait !== undefined) await sleep(wait);
  if (wait !== undefined || (ask.cancel && Object.keys(ask.cancel).length === 0)) call.cancel();
  await ended;
  // The status is told before the error, in the same turn.
  await sleep(0);
  return result;
}

function errorOf({ code, details, metadata }: ServiceError): RpcError {
  const [packed] = metadata.get("grpc-status-details-bin");
  return {
    code,
    message: details,
    details: packed instanceof Buffer ? (errorType.deserialize(packed).details ?? []) : [],
  };
}

function metadataOf(headers: readonly ProtoHeader[] = []): Metadata {
  const metadata = new Metadata();
  for (const { name, value } of headers) {
    for (const one of value) metadata.add(name, name.endsWith("-bin") ? Buffer.from(one, "base64") : one);
  }
  return metadata;
}

function headersOf(metadata: Metadata): ProtoHeader[] {
  return Object.keys(metadata.getMap()).map((name) => ({
    name,
    value: metadata.get(name).map((one) => (typeof one === "string" ? one : one.toString("base64").replace(/=+$/, ""))),
  }));
}

async function serve(bytes: Buffer): Promise<void> {
  const ask = askType.deserialize(bytes);
  const outcome = await make(ask).then(
    (response) => ({ response }),
    (error: unknown) => ({ error: { message: String(error) } }),
  );
  const reply = replyType.serialize({ test_name: ask.test_name, ...outcome });
  const length = Buffer.alloc(4);
  length.writeUInt32BE(reply.length);
  process.stdout.write(Buffer.concat([length, reply]));
}

const mostAtOnce = 8;
const running = new Set<Promise<void>>();
let rest = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  rest = Buffer.concat([rest, chunk]);
  while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE()) {
    const end = 4 + rest.readUInt32BE();
    const served: Promise<void> = serve(rest.subarray(4, end)).finally(() => running.delete(served));
    running.add(served);
    rest = rest.subarray(end);
    if (running.size >= mostAtOnce) await Promise.race(running);
  }
}
await Promise.all(running);
for (const client of clients.values()) client.close();
for (const close of closing) await close();
