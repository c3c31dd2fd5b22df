/**
 * `name[:tag][@digest]`, with the grammar of the OCI distribution-spec 1.1 ("Pulling manifests").
 * A registry's host is no part of it: names here are those of one store.
 */
import { parseDigest } from "./digest.ts";
import { ImageSpecError } from "./image-spec-error.ts";

export interface Reference {
  readonly name: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

const NAME = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
/** Many implementations limit host + name to this (distribution-spec, "Pulling manifests"). */
const NAME_LIMIT = 255;

export function parseReference(value: string): Reference {
  if (value.length > NAME_LIMIT + 700) throw new ImageSpecError("reference", "name[:tag][@digest]", value);
  const at = value.indexOf("@");
  const digest = at < 0 ? undefined : value.slice(at + 1);
  const rest = at < 0 ? value : value.slice(0, at);
  const colon = rest.indexOf(":");
  const tag = colon < 0 ? undefined : rest.slice(colon + 1);
  const name = colon < 0 ? rest : rest.slice(0, colon);
  checkName(name);
  if (tag !== undefined) checkTag(tag);
  if (digest !== undefined) parseDigest(digest, `reference ${name}: digest`);
  return { name, tag, digest };
}

export function checkName(name: string): string {
  if (name.length > NAME_LIMIT || !NAME.test(name)) throw new ImageSpecError("name", 'lower-case words joined by ".", "_", "-" and "/", such as "debian/minimal"', name);
  return name;
}

export function checkTag(tag: string): string {
  if (!TAG.test(tag)) throw new ImageSpecError("tag", 'up to 128 letters, digits, ".", "_", "-", not starting with "." or "-"', tag);
  return tag;
}

export function formatReference(reference: Reference): string {
  return reference.name + (reference.tag === undefined ? "" : `:${reference.tag}`) + (reference.digest === undefined ? "" : `@${reference.digest}`);
}
