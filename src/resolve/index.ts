/**
 * One key, several addresses: conns that spread over the backends of a name, and follow when those change.
 *
 * @example
 * ```ts
 * import { Pool } from "rpc-conn-pool";
 * import { dialDrpc } from "rpc-conn-pool/drpc";
 * import { dialService, hostAddresses } from "rpc-conn-pool/resolve";
 * import { GreeterService } from "./gen/greeter.js";
 *
 * const dial = dialService({ resolve: hostAddresses(), dial: dialDrpc() });
 * await using pool = new Pool({ dial, selection: "least-loaded" });
 * dial.attach(pool);
 * const { message } = await pool.get("localhost:7777").invoke(GreeterService.sayHello, { name: "Ada" });
 * console.log(message); // hello, Ada
 * ```
 *
 * @module
 */
export { dialService, type ServiceAddress, type ServiceDial } from "./dial.ts";
export {
  type HostAddress,
  type HostAddressesOptions,
  hostAddresses,
  type SrvAddressesOptions,
  type SrvRecord,
  srvAddresses,
} from "./dns.ts";
export type { AddressDial, Resolve, Resolved, ResolveOptions, ServiceOptions } from "./resolve.ts";
export type { Warmable } from "./service.ts";
