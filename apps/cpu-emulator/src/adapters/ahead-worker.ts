import { parentPort, workerData } from "node:worker_threads";
import { HART_AREA_BASE } from "../core/hart-state.ts";
import { fusedArithmetic } from "../core/interpreter/engine.ts";
import { encodeAhead } from "../core/translator/ahead/artifact.ts";
import type { RecordedRegion } from "../core/translator/ahead/recording.ts";
import { translateAhead } from "../core/translator/ahead/translate-ahead.ts";
import { AHEAD_SLOTS } from "../core/translator/engine.ts";

export interface AheadJob {
  readonly recordings: readonly RecordedRegion[];
}

/** Entry of the thread that makes a static translation: for hart 0, whose area's address is in the code. */
const { recordings } = workerData as AheadJob;
const modules = translateAhead(recordings, { hart: HART_AREA_BASE, fused: fusedArithmetic(), firstSlot: AHEAD_SLOTS });
const sum = (of: (module: (typeof modules)[number]) => number): number => modules.reduce((all, module) => all + of(module), 0);
parentPort!.postMessage({
  bytes: encodeAhead(modules), wasmBytes: sum(({ bytes }) => bytes.length), regions: sum(({ regions }) => regions.length), modules: modules.length,
});
