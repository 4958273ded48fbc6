import {
  type CallOptions,
  Client,
  credentials,
  Metadata,
  propagate,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { type Answer, type Ask, type EchoServer, echoService } from "./echo-service.ts";

export type Behaviour = (bench: Bench) => Promise<void> | void;

/** What a behaviour did, to be compared: events, codes, details, metadata, in order. */
export type Log = (event: string, ...details: unknown[]) => void;

export interface Bench {
  readonly client: Client;
  readonly address: string;
  readonly echo: EchoServer;
  /** A client of an address that refuses connections. */
  readonly refused: Client;
  readonly log: Log;
}

const { unary, chat } = echoService;

export function shown(metadata: Metadata): string {
  const entries = Object.entries(metadata.getMap()).filter(([key]) => !["date", "content-type"].includes(key));
  return JSON.stringify(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** A unary call, to its very end. */
export function call(
  { client, log }: Pick<Bench, "client" | "log">,
  ask: Ask,
  options: CallOptions = {},
  extra: { metadata?: Metadata; rpc?: typeof unary; touch?: (ran: { cancel(): void }) => void } = {},
): Promise<void> {
  const { path, requestSerialize, responseDeserialize } = extra.rpc ?? unary;
  return new Promise((resolve) => {
    let left = 2;
    const done = (): void => {
      if (--left === 0) resolve();
    };
    const ran = client.makeUnaryRequest<Ask, Answer>(
      path,
      requestSerialize,
      responseDeserialize,
      ask,
      extra.metadata ?? new Metadata(),
      options,
      (error, answer) => {
        if (error) log("error", error.code, error.code === status.DEADLINE_EXCEEDED ? "" : error.details);
        else log("answer", answer?.text);
        done();
      },
    );
    ran.on("metadata", (received: Metadata) => log("metadata", shown(received)));
    ran.on("status", ({ code, metadata: trailers }) => {
      log("status", code, shown(trailers));
      done();
    });
    extra.touch?.(ran);
  });
}

export function record(stream: NodeJS.EventEmitter, log: Log): Promise<void> {
  stream.on("metadata", (metadata: Metadata) => log("metadata", shown(metadata)));
  stream.on("data", (answer: Answer) => log("data", answer.text));
  stream.on("end", () => log("end"));
  stream.on("error", (error: ServiceError) => log("error", error.code, error.details));
  return new Promise((resolve) =>
    stream.on("status", ({ code, metadata }: { code: status; metadata: Metadata }) => {
      log("status", code, shown(metadata));
      setImmediate(resolve);
    }),
  );
}

export function bidi(client: Client) {
  return client.makeBidiStreamRequest<Ask, Answer>(chat.path, chat.requestSerialize, chat.responseDeserialize);
}

export function metadataOf(entries: Record<string, string | Buffer>): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(entries)) metadata.set(key, value);
  return metadata;
}

/** Makes a call in a server's handler, as the child of the call that the handler serves. */
export async function asChildOf(
  client: Client,
  log: Log,
  { cancel = false, timeoutMs = Number.POSITIVE_INFINITY, flags = propagate.DEFAULTS },
): Promise<void> {
  const server = new Server();
  const child = new Promise<void>((resolve) => {
    const handler = (parent: ServerUnaryCall<Ask, Answer>): void => {
      void call({ client, log }, { text: "child", delayMs: -1 }, { parent, propagate_flags: flags }).then(resolve);
      if (cancel) setTimeout(() => outer.cancel(), 10);
    };
    server.addService(echoService, { unary: handler, collect: () => {}, repeat: () => {}, chat: () => {} });
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const caller = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  const { path, requestSerialize, responseDeserialize } = unary;
  const deadline = Date.now() + timeoutMs;
  const outer = caller.makeUnaryRequest(
    path,
    requestSerialize,
    responseDeserialize,
    { text: "" },
    { deadline },
    () => {},
  );
  await child;
  caller.close();
  server.forceShutdown();
}
