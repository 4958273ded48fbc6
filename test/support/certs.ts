/** They stand beside the examples, which are packed and need them, too. */
export * from "../../examples/gen/certs.ts";
