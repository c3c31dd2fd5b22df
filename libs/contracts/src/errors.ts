/** Why a contract call failed, in the words of the contracts (CONTRACT.md, "errors"). Adapters map it to gRPC. */
export type Condition =
  | "invalid" // the request can never work: fix the caller
  | "not-found"
  | "already-exists" // exists and differs
  | "precondition" // not in this state; do something else first
  | "denied" // grant or mediation rule
  | "out-of-range"
  | "exhausted" // disk full, quota, too many
  | "conflict" // somebody else holds it; may work later
  | "corrupt" // digest mismatch, damaged state
  | "unavailable" // peer gone; retry
  | "timeout"
  | "cancelled"
  | "unimplemented"
  | "internal"; // a bug of ours

/** Every error that crosses a contract. The message says operation, got, expected and what to do next. */
export class ContractError extends Error {
  readonly condition: Condition;
  constructor(condition: Condition, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "ContractError";
    this.condition = condition;
  }
}

/** Turns anything thrown into a ContractError; unknown ones become "internal" with the cause kept. */
export function asContractError(error: unknown): ContractError {
  if (error instanceof ContractError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new ContractError("internal", message, { cause: error });
}
