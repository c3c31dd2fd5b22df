import { AsyncLocalStorage } from "node:async_hooks";
import { randomFillSync } from "node:crypto";

/** W3C Trace Context level 1, section 3.2: version, trace id, parent id, flags. */
const TRACEPARENT = /^00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;
export const TRACEPARENT_KEY = "traceparent";

const storage = new AsyncLocalStorage<{ traceId: string }>();

/** Id of the trace that this call chain belongs to, for logs. */
export function currentTraceId(): string | undefined {
  return storage.getStore()?.traceId;
}

/** What an outgoing call carries: the current trace, or a new one when it is the first. */
export function outgoingTraceparent(): string {
  return `00-${currentTraceId() ?? randomHex(16)}-${randomHex(8)}-01`;
}

/** Runs the handling of an incoming call in its caller's trace; without a valid one, as it is. */
export function inTrace<T>(traceparent: unknown, run: () => T): T {
  const traceId = typeof traceparent === "string" ? TRACEPARENT.exec(traceparent)?.[1] : undefined;
  return traceId ? storage.run({ traceId }, run) : run();
}

function randomHex(bytes: number): string {
  return randomFillSync(Buffer.alloc(bytes)).toString("hex");
}
