/**
 * How long an event loop polls instead of sleeping after it answered somebody who waits. A core that went to sleep takes
 * 20 to 40 µs to come back, as long as the whole round trip over a Unix socket; who waits for answers asks in bursts.
 */
const AWAKE_MS = 0.2;

let until = 0;
let polling = false;

/** Keeps this thread's event loop from sleeping for {@link AWAKE_MS} from now. */
export function stayAwake(): void {
  until = performance.now() + AWAKE_MS;
  if (polling) return;
  polling = true;
  setImmediate(poll);
}

function poll(): void {
  if (performance.now() < until) setImmediate(poll);
  else polling = false;
}
