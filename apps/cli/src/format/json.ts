/**
 * Contract messages as JSON for `--json`: maps become objects, bytes base64, and 64-bit integers numbers where a number
 * holds them exactly, else strings (as protobuf's JSON mapping does for all of them).
 */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, each: unknown) => {
    if (typeof each === "bigint") return each <= Number.MAX_SAFE_INTEGER && each >= Number.MIN_SAFE_INTEGER ? Number(each) : each.toString();
    if (each instanceof Map) return Object.fromEntries(each);
    if (each instanceof Uint8Array) return Buffer.from(each).toString("base64");
    if (isSerializedBuffer(each)) return Buffer.from(each.data).toString("base64");
    return each;
  });
}

/** JSON.stringify calls Buffer.prototype.toJSON before the replacer sees the value. */
function isSerializedBuffer(value: unknown): value is { type: "Buffer"; data: number[] } {
  return typeof value === "object" && value !== null && (value as { type?: unknown }).type === "Buffer" && Array.isArray((value as { data?: unknown }).data);
}
