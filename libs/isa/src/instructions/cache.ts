/** Cache-block operations (unprivileged manual, chapter CMO) and Zawrs. Zicbop's prefetches are `ori x0`: nothing to do. */

import { bin, i64, local, set, store, x, type CacheBlockOp, type Stmt } from "../ir.ts";
import { rows, type Instruction } from "../instruction.ts";

/** Block size of all three (device tree `riscv,cbom-block-size` and `riscv,cboz-block-size`), as profile RVA22 wants it. */
export const CACHE_BLOCK_BYTES = 64;

const management = rows("Zicbom", "CMO, Cache-Block Management Instructions");
const zero = rows("Zicboz", "CMO, Cache-Block Zero Instructions");
const zawrs = rows("Zawrs", "Zawrs, Wait-on-Reservation-Set");

const block = bin("and", x("rs1"), i64(-CACHE_BLOCK_BYTES));
const manage = (op: CacheBlockOp): Stmt => ({ kind: "cacheBlock", op, address: block });
const words = Array.from({ length: CACHE_BLOCK_BYTES / 8 }, (_, index) => index * 8);

export const CACHE: readonly Instruction[] = [
  management("cbo.inval", "cbo", 0x0000_200f, manage("inval")),
  management("cbo.clean", "cbo", 0x0010_200f, manage("clean")),
  management("cbo.flush", "cbo", 0x0020_200f, manage("flush")),
  // A block lies in one page, so that only the first store can fault.
  zero("cbo.zero", "cbo", 0x0040_200f,
    { kind: "require", grant: "CBZE" },
    set("block", block),
    ...words.map((offset) => store(8, bin("add", local("block"), i64(offset)), i64(0)))),

  // The stall may end for any reason: here it does not begin. So it needs no timeout and traps nowhere.
  zawrs("wrs.nto", "none", 0x00d0_0073),
  zawrs("wrs.sto", "none", 0x01d0_0073),
];
