/** Why a registry's answer is of no use, in words that the caller can act on. */
export type OciProblem = "not-found" | "unauthorized" | "denied" | "invalid" | "corrupt" | "unavailable" | "protocol";

/** One class for all: what was asked of which registry, what it answered, what may help. */
export class OciClientError extends Error {
  readonly problem: OciProblem;
  /** HTTP status, where there was an answer. */
  readonly status: number | undefined;
  /** distribution-spec error code, where the answer had one, e.g. "MANIFEST_UNKNOWN". */
  readonly code: string | undefined;

  constructor(problem: OciProblem, message: string, facts: { status?: number; code?: string; cause?: unknown } = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = "OciClientError";
    this.problem = problem;
    this.status = facts.status;
    this.code = facts.code;
  }
}
