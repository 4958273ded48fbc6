// Resolve hooks for node:module's `register`: a test file that is imported with `?over=http2` gets `dialGrpcHttp2` where
// it asks for `dialGrpc`, and a `node:test` that leaves out the tests of grpc-js' own channel.
interface Context {
  readonly parentURL?: string;
}

type Resolve = (specifier: string, context: Context) => Promise<{ url: string; format?: string | null }>;

export async function resolve(specifier: string, context: Context, next: Resolve): ReturnType<Resolve> {
  const resolved = await next(specifier, context);
  if (context.parentURL?.endsWith("?over=http2") !== true) return resolved;
  if (resolved.url.endsWith("/src/grpc/index.js")) return next(new URL("./grpc.js", import.meta.url).href, {});
  if (resolved.url === "node:test") return next(new URL("./node-test.js", import.meta.url).href, {});
  return resolved;
}
