// A service, not an address: calls spread over its backends, and follow when those change.
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
import { dialService } from "rpc-conn-pool/resolve";

// What protobuf generators for grpc-js emit; here the messages are text.
const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const whoService = {
  who: {
    path: "/example.Who/Who",
    requestStream: false,
    responseStream: false,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  },
} as const;

const servers = ["a", "b", "c"].map((name) => new DrpcServer().add(whoService, { who: async () => name }));
const addresses = await Promise.all(servers.map((server) => server.listen({ host: "127.0.0.1" })));

// In Kubernetes: `resolve: hostAddresses()`, and the key is the name of a headless service with its port.
let known = addresses.slice(0, 2);
const dial = dialService({ resolve: () => known, dial: dialDrpc() });
const pool = new Pool<string>({ dial, selection: "least-loaded" });
dial.attach(pool); // opens a conn to each address as soon as that is known

const service = pool.get("greeter");
const ask = async () => {
  const names = await Promise.all(Array.from({ length: 6 }, () => service.invoke(whoService.who, "?")));
  return [...new Set(names)].toSorted((x, y) => x.localeCompare(y)).join(" and ");
};

await pool.warm("greeter", 2);
console.log(`answered by ${await ask()}`);
known = addresses.slice(1); // a goes, c comes
await dial.refresh("greeter"); // would happen by itself, every 30 s
await pool.warm("greeter", 6); // as does this: the new address gets its share of the conns
console.log(`answered by ${await ask()}`);

await pool.close();
await Promise.all(servers.map((server) => server.close()));

// answered by a and b
// answered by b and c
