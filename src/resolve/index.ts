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
