import { FlatSource } from "../flat-source.ts";
import { discover } from "../region.ts";
import { RecordingSource, type RecordedRegion } from "./recording.ts";

/**
 * The regions that can be reached from some addresses of a piece of code without knowing what registers will hold: along
 * branches, jumps, calls and returns. `code` lies at the address `base`; at most `most` regions, nearest first.
 */
export function reachableRegions(code: Uint8Array, base: bigint, from: readonly bigint[], most: number): RecordedRegion[] {
  const regions: RecordedRegion[] = [];
  const seen = new Set(from);
  // Grows while it is read.
  for (const address of seen) {
    if (regions.length >= most) break;
    const page = address & ~0xfffn;
    const start = Number(address - page);
    const source = new RecordingSource(new FlatSource(code, Number(base - page)));
    const region = discover(source, start);
    if (region) regions.push(source.recorded(start));
    for (const offset of region?.exits ?? [start + 2, start + 4]) {
      const next = page + BigInt(offset);
      if (next >= base && next < base + BigInt(code.length)) seen.add(next);
    }
  }
  return regions;
}
