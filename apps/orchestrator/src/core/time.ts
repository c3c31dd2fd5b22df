import { ContractError } from "@polyvisor/contracts";
import type { Clock } from "@polyvisor/service-kit";

/** Resolves after `ms`, or early (without error) when `signal` aborts. */
export function delay(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const cancel = clock.after(ms, done);
    function done(): void {
      signal?.removeEventListener("abort", done);
      cancel();
      resolve();
    }
    signal?.addEventListener("abort", done, { once: true });
  });
}

/** The promise's outcome, or a ContractError "timeout" naming `what` after `ms`. */
export function within<T>(clock: Clock, ms: number, promise: Promise<T>, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(ms, () => reject(new ContractError("timeout", `${what} took longer than ${ms} ms`)));
    promise.then(resolve, reject).finally(cancel);
  });
}

/** Rejects with the signal's reason as soon as it aborts; otherwise the promise's outcome. */
export function unlessAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
