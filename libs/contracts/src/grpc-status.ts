import { Metadata, status, type ServiceError, type StatusObject } from "@grpc/grpc-js";
import { ContractError, type Condition } from "./errors.ts";

/** Trailing metadata that carries the exact condition; the status code alone is coarser. */
export const CONDITION_KEY = "polyvisor-condition";

/** Contract condition → gRPC status code (grpc.io/docs/guides/status-codes). */
const CODE_OF: Record<Condition, status> = {
  invalid: status.INVALID_ARGUMENT,
  "not-found": status.NOT_FOUND,
  "already-exists": status.ALREADY_EXISTS,
  precondition: status.FAILED_PRECONDITION,
  denied: status.PERMISSION_DENIED,
  "out-of-range": status.OUT_OF_RANGE,
  exhausted: status.RESOURCE_EXHAUSTED,
  conflict: status.ABORTED,
  corrupt: status.DATA_LOSS,
  unavailable: status.UNAVAILABLE,
  timeout: status.DEADLINE_EXCEEDED,
  cancelled: status.CANCELLED,
  unimplemented: status.UNIMPLEMENTED,
  internal: status.INTERNAL,
};
const CONDITION_OF = new Map<status, Condition>(
  Object.entries(CODE_OF).map(([condition, code]) => [code, condition as Condition]),
);
CONDITION_OF.set(status.UNAUTHENTICATED, "denied");

/** gRPC limits the header block; a longer message would lose the whole status. */
const DETAILS_MAX = 4096;

export function statusOf(error: ContractError): { code: status; details: string; metadata: Metadata } {
  const metadata = new Metadata();
  metadata.set(CONDITION_KEY, error.condition);
  return { code: CODE_OF[error.condition], details: error.message.slice(0, DETAILS_MAX), metadata };
}

/** `what` is the call and the peer, e.g. "memory-manager.openSpace at unix:/run/x.sock". */
export function contractErrorOf(what: string, error: ServiceError | StatusObject): ContractError {
  const named = error.metadata?.get(CONDITION_KEY)[0];
  // Unknown names from a newer peer fall back to the status code.
  const known = typeof named === "string" && Object.hasOwn(CODE_OF, named) ? (named as Condition) : undefined;
  if (known) return new ContractError(known, error.details, { cause: error });
  const condition = CONDITION_OF.get(error.code) ?? "internal";
  const hint = condition === "unavailable" ? "; is the service running there?" : "";
  return new ContractError(condition, `${what}: ${error.details}${hint}`, { cause: error });
}
