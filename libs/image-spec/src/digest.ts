/**
 * Digests: `algorithm:encoded` (OCI image-spec 1.1, descriptor.md, "Digests").
 */
import { ImageSpecError } from "./image-spec-error.ts";

export interface Digest {
  readonly algorithm: string;
  readonly encoded: string;
}

const GRAMMAR = /^([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)$/;
/** Registered algorithms and the exact form of their encoded part (descriptor.md, "Registered algorithms"). */
const REGISTERED: Readonly<Record<string, RegExp>> = { sha256: /^[0-9a-f]{64}$/, sha512: /^[0-9a-f]{128}$/ };

export function parseDigest(value: unknown, where = "digest"): Digest {
  const match = typeof value === "string" && value.length <= 512 ? GRAMMAR.exec(value) : null;
  if (!match) throw new ImageSpecError(where, 'a digest such as "sha256:<64 hex digits>"', value);
  const [, algorithm = "", encoded = ""] = match;
  const form = REGISTERED[algorithm];
  if (form && !form.test(encoded)) throw new ImageSpecError(where, `${algorithm === "sha256" ? 64 : 128} lower-case hex digits after "${algorithm}:"`, value);
  return { algorithm, encoded };
}

/** The 64 hex digits of a sha256 digest, the only algorithm that Polyvisor's store addresses content by. */
export function sha256Of(value: unknown, where = "digest"): string {
  const { algorithm, encoded } = parseDigest(value, where);
  if (algorithm !== "sha256") throw new ImageSpecError(where, 'algorithm "sha256"', value);
  return encoded;
}
