import { assemble } from "@polyvisor/isa";
import { describe, expect, it } from "vitest";
import { fpState } from "../cells.ts";
import { Csr, HStatus, MSTATUS_WRITABLE, MStatus } from "../csr.ts";
import { CSRS, EXTERNAL_PENDING, FP_STATE, INSTRET, PC, PRIVILEGE, RESERVATION, TLB_SET, TRAP_GUEST, VIRTUAL, X } from "../hart-state.ts";
import { TRAP_COUNTS } from "../mailbox.ts";
import { BareMachine } from "./bare-machine.ts";

const WORDS = [
  "ecall", "sret", "csrrw a0, sstatus, a1", "csrrs a0, sstatus, a1", "csrrc a0, sstatus, a1", "csrrc a1, sstatus, a1", "csrw sstatus, a1",
  "csrrwi a0, sstatus, 2", "csrrsi a0, sstatus, 2", "csrrci a0, sstatus, 0", "csrrc a0, sstatus, zero", "csrrw zero, sstatus, zero",
  "rdtime a0", "rdtime zero", "csrrw a0, time, zero", "csrrs a0, time, a1",
];
const ROUNDS = 4000;

/** xorshift32: the same states in every run. */
function numbers(seed: number): () => number {
  return () => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return seed >>> 0;
  };
}

/** Every instruction at its own place, and one hart state per round, drawn so that each condition of `system` is met and missed. */
function run(engine: "reference" | "interpreter"): { states: string[]; executedSlowly: number } {
  const machine = new BareMachine(1 << 20, engine);
  const { cells, core } = machine;
  machine.load(WORDS.join("\n"));
  machine.load("j .", 0x8000_1000n);
  const random = numbers(0x2545_f491);
  const one = (n: number): boolean => random() % n === 0;
  const states: string[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    core.setVirtual(false);
    core.reset(BigInt(BareMachine.RAM_BASE + (round % WORDS.length) * 4), 0n, BigInt(random()) << BigInt(random() % 33));
    core.writeOne(Csr.PMPADDR0, -1n);
    core.writeOne(Csr.PMPCFG0, 0x1fn);
    core.writeOne(Csr.MEDELEG, one(4) ? 0n : 0x100n);
    core.writeOne(Csr.STVEC, BigInt(0x8000_1000 + (one(4) ? 1 : 0)));
    core.writeOne(Csr.SEPC, 0x8000_1004n);
    core.writeOne(Csr.STVAL, 7n);
    core.writeOne(Csr.HTVAL, 7n);
    core.writeOne(Csr.HTINST, 7n);
    core.writeOne(Csr.HSTATUS, BigInt(one(4) ? HStatus.SPV | HStatus.GVA : one(2) ? HStatus.GVA : 0));
    core.time.restore(random() * 2 ** (random() % 20));
    core.writeOne(Csr.MCOUNTEREN, one(4) ? 5n : 7n);
    core.writeOne(Csr.SCOUNTEREN, one(4) ? 5n : 7n);
    core.writeOne(Csr.MIE, one(2) ? 0x222n : 0n);
    core.writeOne(Csr.MIDELEG, 0x222n);
    cells.i32[EXTERNAL_PENDING >> 2] = one(4) ? 0x202 : 0;
    cells.i64[RESERVATION >> 3] = 0x8000_0000n;
    cells.i32[TRAP_GUEST >> 2] = one(16) ? 1 : 0;
    const rare = (one(8) ? MStatus.MPRV : 0) | (one(8) ? MStatus.TSR : 0) | (one(4) ? MStatus.MXR : 0);
    core.setStatus((random() & MSTATUS_WRITABLE & ~(MStatus.MPRV | MStatus.TSR | MStatus.MXR | MStatus.MPP)) | rare);
    if (one(8)) core.setVirtual(true);
    core.setPrivilege(one(8) && !core.virtual ? 3 : random() & 1);
    if (one(8)) core.translation.flushTlb();
    core.translation.contextChanged();
    core.leave = false;
    machine.engine.run(1);
    // The reference keeps no FP_STATE; trap cells are compared where they are read: in CSRs.
    const fp = engine === "reference" ? fpState(cells) : cells.i32[FP_STATE >> 2];
    const registers = [X + 80, X + 88, PC, INSTRET, RESERVATION].map((cell) => cells.u64[cell >> 3]!.toString(16));
    const words = [PRIVILEGE, VIRTUAL, TLB_SET, TRAP_GUEST].map((cell) => cells.i32[cell >> 2]);
    const csrs = [...cells.u64.subarray(CSRS >> 3, (CSRS >> 3) + 4096)].map((value, number) => (value ? `${number.toString(16)}=${value.toString(16)}` : "")).filter(Boolean);
    states.push(`${WORDS[round % WORDS.length]}: ${registers} ${words} fp ${fp} ecalls ${cells.f64[(TRAP_COUNTS >> 3) + 8]} ${csrs.join(" ")}`);
  }
  return { states, executedSlowly: machine.engine.events()["slow-instruction"] ?? 0 };
}

describe("system calls and rdtime in generated code", () => {
  it("leave every register as the privileged core does, whatever the state, and are left to it in a part of the states only", () => {
    expect(assemble(WORDS.join("\n"), { base: 0n }).bytes.length).toBe(WORDS.length * 4);
    const [wanted, got] = [run("reference"), run("interpreter")];
    for (const [round, state] of got.states.entries()) expect(state, `round ${round}`).toBe(wanted.states[round]);
    expect(got.executedSlowly).toBeGreaterThan(ROUNDS / 4);
    expect(got.executedSlowly).toBeLessThan((ROUNDS * 7) / 8);
  });
});
