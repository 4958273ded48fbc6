// What the conformance client reads of the suite's messages, and writes: connectrpc/conformance/v1/client_compat.proto

export interface ProtoHeader {
  readonly name: string;
  readonly value: readonly string[];
}

/** ClientCompatRequest. Fields that have their default are not there. */
export interface Ask {
  readonly test_name: string;
  readonly host: string;
  readonly port: number;
  readonly compression?: number;
  readonly server_tls_cert?: Buffer;
  readonly client_tls_creds?: { readonly cert: Buffer; readonly key: Buffer };
  readonly message_receive_limit?: number;
  readonly method?: string;
  readonly stream_type?: number;
  readonly request_headers?: readonly ProtoHeader[];
  readonly request_messages?: readonly { readonly value?: Buffer }[];
  readonly timeout_ms?: number;
  readonly request_delay_ms?: number;
  readonly cancel?: {
    readonly before_close_send?: object;
    readonly after_close_send_ms?: number;
    readonly after_num_responses?: number;
  };
}

export interface RpcError {
  readonly code: number;
  readonly message?: string;
  readonly details?: readonly object[];
}

/** ClientResponseResult. */
export interface Result {
  response_headers?: readonly ProtoHeader[];
  response_trailers?: readonly ProtoHeader[];
  readonly payloads?: readonly object[];
  error?: RpcError;
  num_unsent_requests?: number;
}

/** ClientCompatResponse. */
export type Reply = { readonly test_name: string } & (
  | { readonly response: Result }
  | { readonly error: { readonly message: string } }
);
