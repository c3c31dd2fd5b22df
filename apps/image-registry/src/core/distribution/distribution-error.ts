import { OCI_ERRORS, writeErrors, type OciErrorCode } from "@polyvisor/image-spec";
import { ContractError } from "@polyvisor/contracts";
import { ImageSpecError } from "@polyvisor/image-spec";
import { StorageError } from "../files.ts";
import { json, type DistributionResponse } from "./message.ts";

/** A refusal in the words of the distribution-spec ("Error Codes"). */
export class DistributionError extends Error {
  readonly status: number;
  readonly code: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly detail: unknown;

  constructor(code: OciErrorCode, message: string, more: { status?: number; headers?: Readonly<Record<string, string>>; detail?: unknown } = {}) {
    super(message);
    this.name = "DistributionError";
    this.code = code;
    this.status = more.status ?? OCI_ERRORS[code];
    this.headers = more.headers ?? {};
    this.detail = more.detail;
  }
}

/** The answer to a request that failed. Undefined: the failure is ours, and to be logged. */
export function refusal(error: unknown): DistributionResponse | undefined {
  if (error instanceof DistributionError) return json(error.status, writeErrors(error.code, error.message, error.detail), error.headers);
  if (error instanceof ImageSpecError) return json(400, writeErrors("MANIFEST_INVALID", error.message));
  // RFC 4918 section 11.5: 507. Clients show the message; the spec has no code for it.
  if (error instanceof StorageError && error.problem === "no-space") return json(507, writeErrors("DENIED", "the registry's disk is full; nothing was stored. Free some space (hv registry gc) and push again"));
  if (error instanceof ContractError) {
    if (error.condition === "exhausted") return json(413, writeErrors("SIZE_INVALID", error.message));
    if (error.condition === "corrupt") return json(500, writeErrors("BLOB_UNKNOWN", error.message));
    if (error.condition === "not-found") return json(404, writeErrors("BLOB_UNKNOWN", error.message));
    if (error.condition === "invalid") return json(400, writeErrors("UNSUPPORTED", error.message));
  }
  return undefined;
}
