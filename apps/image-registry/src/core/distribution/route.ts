import { checkName, parseDigest, sha256Of } from "@polyvisor/image-spec";
import { DistributionError } from "./distribution-error.ts";

/** What a path is about (distribution-spec, "Endpoints"). */
export type Route =
  | { readonly kind: "base" | "catalog" | "token" }
  | { readonly kind: "tags"; readonly name: string }
  | { readonly kind: "manifest" | "blob" | "upload" | "referrers"; readonly name: string; readonly reference: string }
  | { readonly kind: "uploads"; readonly name: string };

/** Names may contain "blobs" and "uploads": the last one that fits counts, so the greedy ".+" comes first. */
const PATTERNS: readonly (readonly [Route["kind"], RegExp])[] = [
  ["base", /^\/v2\/?$/],
  ["catalog", /^\/v2\/_catalog$/],
  ["token", /^\/token$/],
  ["tags", /^\/v2\/(.+)\/tags\/list$/],
  ["uploads", /^\/v2\/(.+)\/blobs\/uploads\/?$/],
  ["upload", /^\/v2\/(.+)\/blobs\/uploads\/([^/]+)$/],
  ["manifest", /^\/v2\/(.+)\/manifests\/([^/]+)$/],
  ["blob", /^\/v2\/(.+)\/blobs\/([^/]+)$/],
  ["referrers", /^\/v2\/(.+)\/referrers\/([^/]+)$/],
];
/** A path is never a file's name here; this only bounds the work of the patterns. */
const PATH_LIMIT = 2048;

export function routeOf(path: string): Route {
  const decoded = decode(path);
  for (const [kind, pattern] of PATTERNS) {
    const match = pattern.exec(decoded);
    if (!match) continue;
    const [, name = "", reference = ""] = match;
    if (name === "") return { kind } as Route;
    nameOrThrow(name);
    if (kind === "blob" || kind === "referrers") digestOrThrow(reference);
    return { kind, name, reference } as Route;
  }
  throw new DistributionError("UNSUPPORTED", `there is nothing at ${path.slice(0, 200)}; this is an OCI registry, its API begins at /v2/`, { status: 404 });
}

function decode(path: string): string {
  if (path.length > PATH_LIMIT) throw new DistributionError("NAME_INVALID", `the path has ${path.length} characters, expected at most ${PATH_LIMIT}`, { status: 414 });
  try {
    return decodeURIComponent(path);
  } catch {
    throw new DistributionError("NAME_INVALID", "the path is not percent-encoded UTF-8");
  }
}

export function nameOrThrow(name: string): string {
  try {
    return checkName(name);
  } catch (error) {
    throw new DistributionError("NAME_INVALID", (error as Error).message);
  }
}

/** A well-formed digest of the algorithm that we store by. */
export function digestOrThrow(value: string): string {
  try {
    parseDigest(value);
    sha256Of(value);
    return value;
  } catch (error) {
    throw new DistributionError("DIGEST_INVALID", (error as Error).message);
  }
}

export const isDigest = (reference: string): boolean => reference.includes(":");
