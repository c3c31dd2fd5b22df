/** One measured thing: the same unit on every system, so that a ratio means something. */
export interface Figure {
  readonly name: string;
  /** Empty: the name says it. */
  readonly unit: string;
  /** Median per system ("embedded", "processes", "QEMU TCG" ...). */
  readonly values: Record<string, number>;
  /** The system that ratios are taken against. */
  readonly peer?: string;
  readonly target?: string;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The figures as one table; each value with its ratio to the peer of the same run. */
export function render(figures: readonly Figure[]): string {
  const systems = [...new Set(figures.flatMap((figure) => Object.keys(figure.values)))];
  const rows = figures.map((figure) => [
    figure.unit === "" ? figure.name : `${figure.name} (${figure.unit})`,
    ...systems.map((system) => cell(figure, system)),
    figure.target ?? "",
  ]);
  const table = [["figure", ...systems, "target"], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  return table.map((row) => row.map((text, column) => text.padEnd(widths[column]!)).join("  ").trimEnd()).join("\n");
}

function cell({ values, peer }: Figure, system: string): string {
  const value = values[system];
  if (value === undefined) return "";
  const text = value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
  const base = peer === undefined || peer === system ? undefined : values[peer];
  return base ? `${text} (${(value / base).toFixed(2)}x)` : text;
}
