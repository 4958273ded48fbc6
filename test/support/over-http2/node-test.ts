import nodeTest from "node:test";

export { after, afterEach, before, describe } from "node:test";

/** Tests of what is grpc-js' own, by name: why they are not for `dialGrpcHttp2`. */
export const ofGrpcJs: Readonly<Record<string, string>> = {
  "gives a conn that is ready, with the real channel": "there is no channel of grpc-js under it",
  "after a GOAWAY it takes no new RPC, finishes what runs, and closes":
    "it closes when its socket has closed, which is after its last RPC",
  "a call whose credentials come after the close was not sent": "it closes grpc-js' channel under the conn",
  "a peer that ignores our FIN holds the socket for a second, not for ever": "`closed` waits for the socket",
  "with retryUnsent, a call whose connection went before it was sent is sent again, once":
    "it closes grpc-js' channel under the conn",
  "pings that cannot be sent are no evidence of death: neither too many at once, nor one of a conn that closes":
    "a ping that cannot be sent is answered by any byte of the peer",
};

function left(name: unknown): boolean {
  return typeof name === "string" && Object.hasOwn(ofGrpcJs, name);
}

export const test: typeof nodeTest = new Proxy(nodeTest, {
  apply: (target, self, args: unknown[]) => (left(args[0]) ? undefined : Reflect.apply(target, self, args)),
});

export const it: typeof nodeTest = test;
