/** The gRPC adapter of every contract: `serveGrpc` offers a mediated port to other processes, `connectGrpc` is one. */
export * from "./grpc-client.ts";
export * from "./grpc-server.ts";
export { MESSAGE_BYTES_MAX } from "./grpc-options.ts";
export { currentTraceId } from "./trace-context.ts";
