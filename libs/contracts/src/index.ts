export * from "./channel.ts";
export * from "./contract.ts";
export * from "./errors.ts";
export * from "./local.ts";
export * from "./port.ts";
export * from "./byte-pool.ts";
export * from "./saved.ts";
export * from "./young-buffers.ts";
