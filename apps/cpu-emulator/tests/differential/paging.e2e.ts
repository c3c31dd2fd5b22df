import { describe, expect, it } from "vitest";
import { firstSeed } from "./first-seed.ts";
import { KINDS, pagingImage } from "./paging-image.ts";
import { QEMU_PAGING, qemuMissing, runOnQemu } from "./qemu.ts";
import { runImage } from "./run-image.ts";

/** POLYVISOR_SEED repeats a run; POLYVISOR_IMAGES sets how many images are compared (default 4, of 2000 accesses each). */
const missing = qemuMissing();
if (missing) console.log(`differential tests of paging skipped: ${missing}`);
const images = Number(process.env["POLYVISOR_IMAGES"] ?? 4);

describe("random page tables, senseless ones too", () => {
  it.skipIf(missing)("accesses fault or reach the same memory as on QEMU, and leave the same tables", { timeout: 120_000 }, async () => {
    const left = KINDS.filter((kind) => !QEMU_PAGING.kinds?.includes(kind));
    console.log(`not compared with this QEMU: ${left.join(", ")}${QEMU_PAGING.sane ? ", senseless entries" : ""}`);
    for (let seed = firstSeed; seed < firstSeed + images; seed++) {
      console.log(`paging: POLYVISOR_SEED=${seed}`);
      for (const stages of [/^[^h]/, /^h/]) {
        const kinds = QEMU_PAGING.kinds!.filter((kind) => stages.test(kind));
        if (kinds.length === 0) continue;
        const image = pagingImage(seed, 2000, { ...QEMU_PAGING, kinds, tolerated: kinds[0]!.startsWith("h") ? QEMU_PAGING.tolerated! : new Map() });
        expect(image.difference(await runOnQemu(image), runImage(image, "interpreter"))).toBeUndefined();
      }
    }
  });
});
