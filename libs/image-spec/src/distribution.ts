/**
 * OCI distribution-spec 1.1: what client and server share: error codes, bodies of errors, the fields that carry ranges,
 * challenges and pages.
 */
import { array, object, string } from "./check.ts";
import { ImageSpecError } from "./image-spec-error.ts";

/** distribution-spec, "Error Codes": the status that goes with each. */
export const OCI_ERRORS = {
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DIGEST_INVALID: 400,
  MANIFEST_BLOB_UNKNOWN: 404,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  SIZE_INVALID: 400,
  UNAUTHORIZED: 401,
  DENIED: 403,
  UNSUPPORTED: 405,
  TOOMANYREQUESTS: 429,
} as const;
export type OciErrorCode = keyof typeof OCI_ERRORS;

/** distribution-spec, "Error Codes": the body of a 4xx. */
export function writeErrors(code: string, message: string, detail?: unknown): string {
  return `${JSON.stringify({ errors: [{ code, message, ...(detail === undefined ? {} : { detail }) }] })}\n`;
}

/** The first error of such a body; undefined when it is none. */
export function readErrors(text: string): { code: string; message: string } | undefined {
  try {
    const first = object(array(object(JSON.parse(text), "body")["errors"], "errors")[0], "errors[0]");
    return { code: string(first["code"], "code"), message: typeof first["message"] === "string" ? first["message"] : "" };
  } catch {
    return undefined;
  }
}

/** Inclusive, as HTTP has them. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

/**
 * Content-Range of a chunk: distribution-spec ("Pushing a blob in chunks") has `<start>-<end>`; RFC 9110 section 14.4 has
 * `bytes <start>-<end>/<size>`, which some clients send.
 */
export function parseContentRange(value: string): ByteRange {
  const match = /^(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:\/(?:\d{1,15}|\*))?$/.exec(value.trim());
  const [first, last] = [Number(match?.[1]), Number(match?.[2])];
  if (!match || last < first) throw new ImageSpecError("Content-Range", '"<first>-<last>", both inclusive', value);
  return { first, last };
}

/**
 * Range of a request for one blob of `size` bytes (RFC 9110 section 14.2). "whole": the field is of another unit, or
 * malformed, or asks for several ranges, and is to be ignored. "unsatisfiable": 416.
 */
export function parseByteRange(value: string | undefined, size: number): ByteRange | "whole" | "unsatisfiable" {
  const match = value === undefined ? null : /^bytes=(\d{0,15})-(\d{0,15})$/.exec(value.replaceAll(" ", ""));
  if (!match || (match[1] === "" && match[2] === "")) return "whole";
  if (match[1] === "") {
    const suffix = Number(match[2]);
    return suffix === 0 || size === 0 ? "unsatisfiable" : { first: Math.max(0, size - suffix), last: size - 1 };
  }
  const first = Number(match[1]);
  const last = match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (match[2] !== "" && Number(match[2]) < first) return "whole";
  return first >= size ? "unsatisfiable" : { first, last };
}

/** The target of rel="next" in a Link field (RFC 8288); distribution-spec, "Listing tags". */
export function parseNextLink(value: string | null | undefined): string | undefined {
  for (const match of (value ?? "").matchAll(/<([^<>]*)>\s*((?:;[^,<>]*)*)/g)) {
    if (/;\s*rel\s*=\s*"?next"?\s*(?:;|$)/i.test(match[2] ?? "")) return match[1];
  }
  return undefined;
}

export interface Challenge {
  /** Lower case: "bearer", "basic". */
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

/** WWW-Authenticate (RFC 9110 section 11.6.1): its challenges, in order. */
export function parseChallenges(value: string | null | undefined): Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  const token = /\s*,?\s*([!#$%&'*+.^_`|~\w-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?/gy;
  for (const [, name = "", quoted, plain] of (value ?? "").matchAll(token)) {
    const content = quoted === undefined ? plain : quoted.replaceAll(/\\(.)/g, "$1");
    if (content === undefined) challenges.push({ scheme: name.toLowerCase(), parameters: {} });
    else if (challenges.length > 0) challenges.at(-1)!.parameters[name.toLowerCase()] = content;
  }
  return challenges;
}
