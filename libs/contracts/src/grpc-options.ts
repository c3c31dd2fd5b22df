import type { ChannelOptions } from "@grpc/grpc-js";

/** Largest message either side sends or accepts: the biggest block write (1 MiB) and page grants with room to spare. */
export const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/**
 * HTTP/2 receive window per stream and connection. The default of 64 KiB halves the throughput of frame and block
 * streams over a Unix socket (facts page, "Messages between processes").
 */
const FLOW_CONTROL_WINDOW = 4 * 1024 * 1024;

const COMMON: ChannelOptions = {
  "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
  "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
  "grpc-node.flow_control_window": FLOW_CONTROL_WINDOW,
};

export const SERVER_OPTIONS: ChannelOptions = {
  ...COMMON,
  // Finds callers whose host has vanished. Servers may ping as often as they like.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
};

export function clientOptions(address: string): ChannelOptions {
  return {
    ...COMMON,
    "grpc.use_local_subchannel_pool": 1, // closing one port closes its connection
    "grpc.enable_retries": 0, // calls are not idempotent by default; the retry buffer also costs on every message
    "grpc.enable_http_proxy": 0,
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.min_reconnect_backoff_ms": 50,
    // A process of this host that was started again is found at once; looking for its socket costs nothing.
    "grpc.max_reconnect_backoff_ms": address.startsWith("unix:") ? 200 : 2_000,
    // Other gRPC servers answer pings more frequent than five minutes with GOAWAY (gRPC proposal A8).
    ...(address.startsWith("unix:") ? {} : { "grpc.keepalive_time_ms": 300_000, "grpc.keepalive_timeout_ms": 10_000 }),
  };
}
