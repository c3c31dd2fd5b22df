/** CLOCK_MONOTONIC in milliseconds: the same in every thread of the process, unlike performance.now alone. */
const offsetMs = measureOffset();

/** performance.now counts from each thread's start; the nearest of a few looks tells how far apart the two clocks are. */
function measureOffset(): number {
  let best = Infinity;
  let offset = 0;
  for (let i = 0; i < 20; i++) {
    const before = performance.now();
    const now = Number(process.hrtime.bigint()) / 1e6;
    const after = performance.now();
    if (after - before < best) {
      best = after - before;
      offset = now - (before + after) / 2;
    }
  }
  return offset;
}

export function hostMs(): number {
  return performance.now() + offsetMs;
}
