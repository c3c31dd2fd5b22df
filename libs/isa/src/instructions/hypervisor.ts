/** H: hypervisor loads, stores and fences (privileged manual, chapter "H" Extension for Hypervisor Support), HINVAL of Svinval. */

import { setX, system, x, type Bytes, type Stmt } from "../ir.ts";
import { rows, type Instruction } from "../instruction.ts";

const accesses = rows("H", "H, Hypervisor Virtual-Machine Load and Store Instructions");
const fences = rows("H", "H, Hypervisor Memory-Management Fence Instructions");
const invalidations = rows("H", "Svinval, Fine-Grained Address-Translation Cache Invalidation");

const address = x("rs1");
const load = (bytes: Bytes, signed: boolean, execute = false): Stmt => setX({ kind: "guestLoad", bytes, signed, execute, address });
const store = (bytes: Bytes): Stmt => ({ kind: "guestStore", bytes, address, value: x("rs2") });

export const HYPERVISOR: readonly Instruction[] = [
  accesses("hlv.b", "hlv", 0x6000_4073, load(1, true)),
  accesses("hlv.bu", "hlv", 0x6010_4073, load(1, false)),
  accesses("hlv.h", "hlv", 0x6400_4073, load(2, true)),
  accesses("hlv.hu", "hlv", 0x6410_4073, load(2, false)),
  accesses("hlvx.hu", "hlv", 0x6430_4073, load(2, false, true)),
  accesses("hlv.w", "hlv", 0x6800_4073, load(4, true)),
  accesses("hlv.wu", "hlv", 0x6810_4073, load(4, false)),
  accesses("hlvx.wu", "hlv", 0x6830_4073, load(4, false, true)),
  accesses("hlv.d", "hlv", 0x6c00_4073, load(8, true)),
  accesses("hsv.b", "hsv", 0x6200_4073, store(1)),
  accesses("hsv.h", "hsv", 0x6600_4073, store(2)),
  accesses("hsv.w", "hsv", 0x6a00_4073, store(4)),
  accesses("hsv.d", "hsv", 0x6e00_4073, store(8)),
  fences("hfence.vvma", "sfence", 0x2200_0073, system("hfence.vvma")),
  fences("hfence.gvma", "sfence", 0x6200_0073, system("hfence.gvma")),
  invalidations("hinval.vvma", "sfence", 0x2600_0073, system("hfence.vvma")),
  invalidations("hinval.gvma", "sfence", 0x6600_0073, system("hfence.gvma")),
];
