import { type AddressInfo, createServer, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { type GreeterServer, GreeterService } from "../../examples/gen/greeter.ts";
import { DrpcServer } from "../../src/drpc/index.ts";

/** The peers that the programs of the documents talk to. */
export interface GreeterServers extends AsyncDisposable {
  /** Where each really is, by the address that the programs have for it. */
  readonly addresses: ReadonlyMap<string, string>;
}

/** A greeter over gRPC, one over DRPC, and what answers PING as Redis does, each on a port of its own. */
export async function startGreeters(): Promise<GreeterServers> {
  const greeting = (name: string) => ({ message: `hello, ${name}` });
  const greeter: GreeterServer = { sayHello: (call, reply) => reply(null, greeting(call.request.name)) };
  const grpc = new Server();
  grpc.addService(GreeterService, { ...greeter });
  const bind = promisify(grpc.bindAsync.bind(grpc));
  const grpcPort = await bind("localhost:0", ServerCredentials.createInsecure());

  const drpc = new DrpcServer().add(GreeterService, { sayHello: ({ name }) => greeting(name) });
  const drpcAddress = await drpc.listen({ host: "localhost" });

  const sockets = new Set<Socket>();
  const redis = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    createInterface(socket).on("line", (line) => socket.write(line === "PING" ? "+PONG\r\n" : "-ERR\r\n"));
  });
  await new Promise<void>((resolve) => redis.listen(0, "localhost", resolve));

  return {
    addresses: new Map([
      ["localhost:50051", `localhost:${grpcPort}`],
      ["localhost:7777", drpcAddress],
      ["localhost:6379", `localhost:${(redis.address() as AddressInfo).port}`],
    ]),
    async [Symbol.asyncDispose]() {
      grpc.forceShutdown();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => redis.close(resolve));
      await drpc.close();
    },
  };
}
