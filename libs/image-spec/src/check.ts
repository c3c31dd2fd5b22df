/** Small readers of untrusted JSON values; every failure names the place. */
import { ImageSpecError } from "./image-spec-error.ts";

export type Json = Record<string, unknown>;

export function object(value: unknown, where: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new ImageSpecError(where, "an object", value);
  return value as Json;
}

export function array(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) throw new ImageSpecError(where, "an array", value);
  return value;
}

export function string(value: unknown, where: string): string {
  if (typeof value !== "string") throw new ImageSpecError(where, "a string", value);
  return value;
}

/** A non-negative integer that JSON and JavaScript hold exactly. */
export function count(value: unknown, where: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw new ImageSpecError(where, "a non-negative integer below 2^53", value);
  return value;
}

export function optional<T>(value: unknown, read: (value: unknown) => T): T | undefined {
  return value === undefined || value === null ? undefined : read(value);
}

export function stringMap(value: unknown, where: string): Record<string, string> {
  for (const [key, item] of Object.entries(object(value, where))) string(item, `${where}["${key}"]`);
  return value as Record<string, string>;
}

/** RFC 6838 section 4.2: type "/" subtype, with optional parameters. */
const MEDIA_TYPE = /^[A-Za-z0-9][\w!#$&^.+-]{0,126}\/[A-Za-z0-9][\w!#$&^.+-]{0,126}(?:;.*)?$/;
export function mediaType(value: unknown, where: string): string {
  if (!MEDIA_TYPE.test(string(value, where))) throw new ImageSpecError(where, "a media type (RFC 6838)", value);
  return value as string;
}
