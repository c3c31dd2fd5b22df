import { stripVTControlCharacters } from "node:util";

export type Cell = string | number | bigint;

/** Columns padded to their widest cell; numbers to the right. Colours do not count as width. */
export function table(header: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const text = rows.map((row) => row.map((cell) => (typeof cell === "string" ? cell : cell.toLocaleString("en-US"))));
  const width = (value: string): number => stripVTControlCharacters(value).length;
  const widths = header.map((title, column) => Math.max(width(title), ...text.map((row) => width(row[column] ?? ""))));
  const numeric = header.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] !== "string"));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => {
        const padding = " ".repeat(widths[column]! - width(cell));
        return numeric[column] ? padding + cell : cell + padding;
      })
      .join("  ")
      .trimEnd();
  return [line(header.map((title) => title.toUpperCase())), ...text.map(line)].join("\n");
}
