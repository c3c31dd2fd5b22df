/** Something that is not what the specification says: where, what was expected, what was found. */
export class ImageSpecError extends Error {
  constructor(where: string, expected: string, got: unknown) {
    super(`${where}: expected ${expected}, got ${show(got)}`);
    this.name = "ImageSpecError";
  }
}

/** At most 80 characters of a value that may have come from anywhere. */
function show(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = typeof value === "bigint" ? String(value) : (JSON.stringify(value) ?? typeof value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
