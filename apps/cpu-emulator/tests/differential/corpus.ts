import { MODES, type Block, type Program } from "./random-program.ts";

/**
 * A program of one block as text, for tests/differential/corpus: `#` lines are remarks (what went wrong), the others are a name and
 * values. What is zero is left out.
 */
export function writeProgram(program: Program, remark: readonly string[]): string {
  const block = program.blocks[0]!;
  const hex = (value: bigint | number): string => `0x${value.toString(16)}`;
  const registers = (name: "x" | "f"): string[] => block[name].flatMap((value, n) => (value === 0n ? [] : [`${name}${n} ${hex(value)}`]));
  return [
    ...remark.map((line) => `# ${line}`),
    `mode ${program.mode.name}`, `tables ${program.tableSeed}`, `index ${block.index}`, `code ${hex(block.code)}`, `data ${block.dataSeed}`,
    `fcsr ${hex(block.fcsr)}`, `words ${block.words.map((word) => hex(word >>> 0)).join(" ")}`, ...registers("x"), ...registers("f"), "",
  ].join("\n");
}

export function readProgram(text: string): Program {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    if (line.startsWith("#") || line.trim() === "") continue;
    const space = line.indexOf(" ");
    values.set(line.slice(0, space), line.slice(space + 1).trim());
  }
  const get = (name: string): string => {
    const value = values.get(name);
    if (value === undefined) throw new Error(`corpus: no "${name}" line`);
    return value;
  };
  const mode = MODES.find(({ name }) => name === get("mode"));
  if (!mode) throw new Error(`corpus: no mode "${get("mode")}"`);
  const registers = (name: "x" | "f"): bigint[] => Array.from({ length: 32 }, (_, n) => BigInt(values.get(`${name}${n}`) ?? 0));
  const block: Block = {
    index: Number(get("index")), code: Number(get("code")), dataSeed: Number(get("data")), fcsr: Number(get("fcsr")),
    words: get("words").split(/\s+/).map((word) => Number(word) | 0), x: registers("x"), f: registers("f"),
  };
  return { mode, tableSeed: Number(get("tables")), blocks: [block] };
}
