/** A paragraph of deb822(5): field names as written, values with their continuation lines. */
export class ControlParagraph {
  readonly #fields: Map<string, string>;
  constructor(fields: Map<string, string>) {
    this.#fields = fields;
  }

  get(field: string): string | undefined {
    for (const [name, value] of this.#fields) if (name.toLowerCase() === field.toLowerCase()) return value;
    return undefined;
  }

  entries(): IterableIterator<[string, string]> {
    return this.#fields.entries();
  }
}

export function parseControl(text: string, what: string): ControlParagraph {
  const fields = new Map<string, string>();
  let last: string | undefined;
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) continue;
    if (/^[ \t]/.test(line) && last !== undefined) {
      fields.set(last, `${fields.get(last)}\n${line}`);
      continue;
    }
    const match = /^([!-9;-~]+):[ \t]*(.*)$/.exec(line);
    if (match) fields.set((last = match[1] as string), match[2] as string);
    else if (line.trim() !== "") throw new Error(`${what}: "${line.slice(0, 60)}" is not a field of a control file`);
  }
  return new ControlParagraph(fields);
}
