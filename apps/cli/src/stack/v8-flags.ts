import { availableParallelism } from "node:os";

/** How many threads of V8 compile and collect in one process; Node takes four, however many cores there are. */
const POOL_THREADS = Math.max(1, Math.min(4, availableParallelism() - 1));

/**
 * V8 for a daemon in which a guest runs. With four compiler threads on two cores a hart gets two fifths of a core while what
 * it runs is being translated: a boot takes 2.6 s instead of 2.3.
 */
export const DAEMON_V8_FLAGS = [
  `--v8-pool-size=${POOL_THREADS}`,
  // Pages, blocks and frames come as buffers outside of V8's heap, which it answers with full collections, 26 in a boot, until its heap is so large.
  "--initial-old-space-size=64",
];

export const SERVICE_V8_FLAGS = [
  ...DAEMON_V8_FLAGS,
  // What is called often is compiled after a third of V8's usual count of calls: the first 20,000 exits of a new stack take 80 µs each instead of 99.
  "--invocation-count-for-maglev=100",
  "--invocation-count-for-turbofan=1000",
];
