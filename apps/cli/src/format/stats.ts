import type { ReadMachineStatsResponse } from "@polyvisor/contracts/orchestrator";
import { formatCount, formatDuration } from "./quantity.ts";
import { table } from "./table.ts";

/** Messages per plane, added up over methods and services. */
export function planeTotals(stats: ReadMachineStatsResponse): { plane: string; seen: bigint; executed: bigint; denied: bigint; dropped: bigint; modified: bigint }[] {
  const totals = new Map<string, { plane: string; seen: bigint; executed: bigint; denied: bigint; dropped: bigint; modified: bigint }>();
  for (const { plane, seen, executed, denied, dropped, modified } of stats.planes) {
    const total = totals.get(plane) ?? { plane, seen: 0n, executed: 0n, denied: 0n, dropped: 0n, modified: 0n };
    total.seen += seen;
    total.executed += executed;
    total.denied += denied;
    total.dropped += dropped;
    total.modified += modified;
    totals.set(plane, total);
  }
  return [...totals.values()].toSorted((a, b) => (a.plane < b.plane ? -1 : 1));
}

export function statsText(stats: ReadMachineStatsResponse): string {
  const busyMs = Number(stats.busyUs) / 1000;
  const rate = busyMs > 0 ? ` (${(Number(stats.instructions) / busyMs / 1000).toFixed(0)} million a second of busy time)` : "";
  const sections: string[] = [`instructions  ${formatCount(stats.instructions)}${rate}`, `busy          ${formatDuration(busyMs)}`];
  const planes = planeTotals(stats);
  if (planes.length > 0) {
    sections.push(
      "",
      table(
        ["plane", "seen", "executed", "denied", "dropped", "modified"],
        planes.map(({ plane, seen, executed, denied, dropped, modified }) => [plane, seen, executed, denied, dropped, modified]),
      ),
    );
  }
  for (const [title, map] of [["exit", stats.exits], ["event", stats.events], ["memory", stats.memory], ["device", stats.devices], ["network", stats.network]] as const) {
    const rows = [...map].filter(([, value]) => value > 0n).toSorted(([a], [b]) => (a < b ? -1 : 1));
    if (rows.length > 0) sections.push("", table([title, "count"], rows));
  }
  return sections.join("\n");
}
