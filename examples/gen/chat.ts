// What ts-proto makes of chat.proto, in short, with `outputServices=grpc-js,outputServices=default,useAsyncIterable=true`:
// a service for grpc-js, and a client of ts-proto's own, which runs on whatever is an `Rpc`.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { LineSchema } from "./chat_pb.ts";

export interface Line {
  text: string;
}
type Lines = AsyncIterable<Line>;

const encode = (line: Line): Buffer => Buffer.from(toBinary(LineSchema, create(LineSchema, line)));
const decode = (bytes: Uint8Array): Line => fromBinary(LineSchema, bytes);
async function* map<T, U>(source: AsyncIterable<T>, change: (item: T) => U): AsyncGenerator<U, void, undefined> {
  for await (const item of source) yield change(item);
}

const line = {
  requestSerialize: encode,
  requestDeserialize: decode,
  responseSerialize: encode,
  responseDeserialize: decode,
} as const;
export const ChatService = {
  say: { path: "/demo.Chat/Say", requestStream: false, responseStream: false, ...line },
  collect: { path: "/demo.Chat/Collect", requestStream: true, responseStream: false, ...line },
  repeat: { path: "/demo.Chat/Repeat", requestStream: false, responseStream: true, ...line },
  talk: { path: "/demo.Chat/Talk", requestStream: true, responseStream: true, ...line },
} as const;

interface Rpc {
  request(service: string, method: string, data: Uint8Array): Promise<Uint8Array>;
  clientStreamingRequest(service: string, method: string, data: AsyncIterable<Uint8Array>): Promise<Uint8Array>;
  serverStreamingRequest(service: string, method: string, data: Uint8Array): AsyncIterable<Uint8Array>;
  bidirectionalStreamingRequest(
    service: string,
    method: string,
    data: AsyncIterable<Uint8Array>,
  ): AsyncIterable<Uint8Array>;
}

export class ChatClientImpl {
  private readonly rpc: Rpc;
  constructor(rpc: Rpc) {
    this.rpc = rpc;
  }
  async say(request: Line): Promise<Line> {
    return decode(await this.rpc.request("demo.Chat", "Say", encode(request)));
  }
  async collect(request: Lines): Promise<Line> {
    return decode(await this.rpc.clientStreamingRequest("demo.Chat", "Collect", map(request, encode)));
  }
  repeat(request: Line): Lines {
    return map(this.rpc.serverStreamingRequest("demo.Chat", "Repeat", encode(request)), decode);
  }
  talk(request: Lines): Lines {
    return map(this.rpc.bidirectionalStreamingRequest("demo.Chat", "Talk", map(request, encode)), decode);
  }
}
