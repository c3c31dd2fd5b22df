import type { Topology } from "./home.ts";

/** Node flags of the process that runs harts. They must be on the command line: V8 crashes when some are set later. */
export const ENGINE_FLAGS: readonly string[] = ["--no-liftoff", "--no-wasm-lazy-compilation"];

/** Node flags of a stack's daemon. In the processes topology it only supervises. */
export function daemonFlags(topology: Topology): string[] {
  return topology === "embedded" ? [...ENGINE_FLAGS] : [];
}
