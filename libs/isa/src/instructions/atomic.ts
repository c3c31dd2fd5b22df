/** A: load-reserved/store-conditional and atomic memory operations, .w and .d (unprivileged manual, chapter A). */

import { setX, x, type AmoOp } from "../ir.ts";
import { rows, type Instruction } from "../instruction.ts";

const zalrsc = rows("A", "A, Load-Reserved/Store-Conditional Instructions");
const zaamo = rows("A", "A, Atomic Memory Operations");

const WIDTHS = [
  { suffix: "w", bytes: 4, opcode: 0x202f },
  { suffix: "d", bytes: 8, opcode: 0x302f },
] as const;

const OPERATIONS: readonly (readonly [name: string, funct5: number, op: AmoOp])[] = [
  ["amoadd", 0x00, "add"],
  ["amoswap", 0x01, "swap"],
  ["amoxor", 0x04, "xor"],
  ["amoor", 0x08, "or"],
  ["amoand", 0x0c, "and"],
  ["amomin", 0x10, "minS"],
  ["amomax", 0x14, "maxS"],
  ["amominu", 0x18, "minU"],
  ["amomaxu", 0x1c, "maxU"],
];

const address = x("rs1");
const value = x("rs2");

/** aq and rl (bits 26 and 25) are not part of the match: the IR's atomics are sequentially consistent. */
export const ATOMIC: readonly Instruction[] = WIDTHS.flatMap(({ suffix, bytes, opcode }) => [
  zalrsc(`lr.${suffix}`, "lr", 0x1000_0000 | opcode, setX({ kind: "lr", bytes, address })),
  zalrsc(`sc.${suffix}`, "amo", 0x1800_0000 | opcode, setX({ kind: "sc", bytes, address, value })),
  ...OPERATIONS.map(([name, funct5, op]) =>
    zaamo(`${name}.${suffix}`, "amo", (funct5 << 27) | opcode, setX({ kind: "amo", op, bytes, address, value })),
  ),
]);
