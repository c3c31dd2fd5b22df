import type { HartCells, MachineCells } from "./cells.ts";
import { ATTENTION, MAILBOX, REQUESTS } from "./hart-state.ts";
import { SpinWait } from "./spin.ts";

/**
 * The mailbox between one hart (worker thread) and the hart host (main thread), in the hart's cells:
 *
 *   ring      records of exits, in program order. A posted one is written and forgotten; the writer waits only when the
 *             ring is full. A waiting one is a record too, then the hart sleeps on ANSWER until the host has put the
 *             answer beside it.
 *   requests  bits that the host or another hart sets and the hart serves between two slices: REQUESTS, with
 *             REQUEST_SEQ / DONE_SEQ to know when they were served.
 *
 * One doorbell per machine wakes the host; it is rung only when the host has said that it sleeps.
 */
const AT = MAILBOX;
export const RING_HEAD = AT + 0x00; // i32: records written, free-running
export const RING_TAIL = AT + 0x04; // i32: records taken; the hart's futex while the ring is full
export const ANSWER = AT + 0x08; // i32: futex: number of the waiting exit that was answered last
export const ANSWER_STATUS = AT + 0x0c; // i32: AnswerStatus
export const ANSWER_VALUE = AT + 0x10; // i64
export const ANSWER_LENGTH = AT + 0x18; // i32: bytes in ANSWER_DATA
export const RUN_STATE = AT + 0x1c; // i32: RunState
export const REQUEST_SEQ = AT + 0x20; // i32: requests made
export const DONE_SEQ = AT + 0x24; // i32: futex: requests served
export const HSM_STATE = AT + 0x28; // i32: SBI HSM hart state, see sbi/hsm.ts
export const STEP_BUDGET = AT + 0x2c; // i32: instructions of a STEP request
export const HSM_ADDRESS = AT + 0x30; // i64
export const HSM_OPAQUE = AT + 0x38; // i64
export const MTIMECMP = AT + 0x40; // i64, CLINT
export const ENGINE_WANTED = AT + 0x48; // i32: index into ENGINES (hart-loop.ts)
export const IDLE_MS = AT + 0x50; // f64: time asleep in WFI or stopped while the machine ran
export const PARK_MS = AT + 0x58; // f64: host time since which the hart sleeps, 0 = it does not
export const STARTED_MS = AT + 0x60; // f64: host time when the machine first ran
export const RING_WAITING = AT + 0x68; // i32: 1 while the hart waits on RING_TAIL for room
export const TLB_MISSES = AT + 0x70; // 3 × f64: of loads, stores, fetches
export const STEP_FLAGS = AT + 0xe0; // i32: StepFlag bits of a STEP request
export const STOP_KIND = AT + 0xe4; // i32: why the hart parked by itself: a DebugHit's kind + 1, 0 = it did not
export const STOP_ADDRESS = AT + 0xe8; // i64
export const TRAP_COUNTS = 0x500; // 64 × f64: exceptions by cause, interrupts at 32 + cause
export const EXIT_COUNTS = 0x700; // 16 × f64 by ExitKind
export const EVENT_COUNTS = 0x780; // 16 × f64 by EVENT_NAMES
const RING = 0x9000; // RING_RECORDS × 32 bytes
export const RING_RECORDS = 512;
const POST_DATA = 0xd000; // bytes that go with a CONSOLE_WRITE
export const POST_DATA_BYTES = 0x1000;
const ANSWER_DATA = 0xe000; // bytes that come with the answer of a CONSOLE_READ
export const ANSWER_DATA_BYTES = 0x1000;

export const ExitKind = {
  MMIO_READ: 1, // waits
  MMIO_WRITE: 2,
  CONSOLE_WRITE: 3, // waits until the host has taken the bytes
  CONSOLE_BYTE: 4,
  CONSOLE_READ: 5, // waits
  SYSTEM_RESET: 6,
  PAGE: 7, // waits: page number in address, 1 in value = for writing
  SETTLE: 9, // deterministic: waits for the devices; posted it only tells the time, ticks in value
} as const;
export const EXIT_NAMES: Record<number, string> = {
  1: "mmio-read", 2: "mmio-write", 3: "sbi-console", 4: "sbi-console-byte", 5: "sbi-console-read", 6: "sbi-reset",
  7: "page-fault", 8: "wfi", 9: "settle",
};
export const WFI_COUNT = 8;
export const EVENT_NAMES = [
  "sbi-base", "sbi-time", "sbi-ipi", "sbi-rfence", "sbi-hsm", "sbi-srst", "sbi-dbcn", "sbi-legacy", "sbi-unknown",
  "ring-full", "slice", "sbi-pmu", "sbi-susp",
] as const;
export type EventName = (typeof EVENT_NAMES)[number];

export const AnswerStatus = { OK: 0, FAULT: 1 } as const;

/** What the hart's thread is doing; other threads decide by it whether they must wait for it. */
export const RunState = {
  RUNNING: 0, // in guest code or about to be
  BLOCKED: 1, // asleep: touches neither memory nor TLB, and serves requests before it goes on
  PARKED: 2, // paused; the same promise
  EXITED: 3,
} as const;

/** Bits of REQUESTS. */
export const Request = {
  PAUSE: 1, // park until RUN, STEP or STOP
  RUN: 2,
  STEP: 4, // execute STEP_BUDGET instructions, then park again
  STOP: 8, // end the thread
  FENCE_I: 16,
  FLUSH_TLB: 32,
  ENGINE: 64, // switch to ENGINE_WANTED
  REPORT: 128, // tell the engine's numbers
  PROFILE: 4096, // tell where the time goes
  RECORDING: 8192, // tell what was translated (engine `recording`)
} as const;

/** Bits of STEP_FLAGS. */
export const StepFlag = {
  NO_INTERRUPTS: 1, // a debugger's step stays in the code that it steps through
} as const;

// Byte offsets from MACHINE_WORDS.
export const DOORBELL = 0x00; // i32: rung by harts; futex of the host
export const HOST_ASLEEP = 0x04; // i32: 1 while the host waits on DOORBELL

/** One record of the ring. */
export interface Exit {
  kind: number;
  /** Number of a waiting exit, 0 on posted ones. */
  sequence: number;
  size: number;
  address: bigint;
  value: bigint;
}

function recordAt(index: number): number {
  return RING + (index & (RING_RECORDS - 1)) * 32;
}

/** The hart's end. All methods run in the hart's thread. */
export class HartMailbox {
  readonly #cells: HartCells;
  readonly #machine: MachineCells;
  #sequence = 0;
  readonly #spin = new SpinWait(1500); // ~45 µs: an answer from this process, whose thread may be in a turn of its event loop; from another one it takes longer
  /** What to do about requests that arrive while the hart sleeps in a waiting exit; set by the hart loop. */
  serveWhileBlocked: () => void = () => {};

  constructor(cells: HartCells, machine: MachineCells) {
    this.#cells = cells;
    this.#machine = machine;
  }

  post(kind: number, size: number, address: bigint, value: bigint): void {
    this.#write(kind, 0, size, address, value);
  }
  /** Posts and sleeps until answered. */
  call(kind: number, size: number, address: bigint, value: bigint): number {
    const cells = this.#cells;
    const sequence = (this.#sequence = (this.#sequence + 1) | 0 || 1);
    const before = Atomics.load(cells.i32, ANSWER >> 2);
    this.#write(kind, sequence, size, address, value);
    this.#spin.until(cells.i32, ANSWER >> 2, before);
    if (Atomics.load(cells.i32, ANSWER >> 2) !== sequence) {
      this.block(() => {
        let seen: number;
        while ((seen = Atomics.load(cells.i32, ANSWER >> 2)) !== sequence) Atomics.wait(cells.i32, ANSWER >> 2, seen);
      });
    }
    return cells.i32[ANSWER_STATUS >> 2]!;
  }
  answerValue(): bigint {
    return this.#cells.u64[ANSWER_VALUE >> 3]!;
  }
  answerData(): Uint8Array {
    return this.#cells.u8.subarray(ANSWER_DATA, ANSWER_DATA + this.#cells.i32[ANSWER_LENGTH >> 2]!);
  }
  /** Where the bytes of a CONSOLE_WRITE go before `call`. */
  postData(): Uint8Array {
    return this.#cells.u8.subarray(POST_DATA, POST_DATA + POST_DATA_BYTES);
  }

  /** Runs `sleep`, during which others may take pages away and need not wait for this hart. */
  block(sleep: () => void): void {
    const cells = this.#cells;
    Atomics.store(cells.i32, RUN_STATE >> 2, RunState.BLOCKED);
    Atomics.notify(cells.i32, DONE_SEQ >> 2); // whoever waits for us looks again
    sleep();
    Atomics.store(cells.i32, RUN_STATE >> 2, RunState.RUNNING);
    // Order matters: state first, then the look at requests (the other side: request first, then the look at the state).
    if (Atomics.load(cells.i32, REQUEST_SEQ >> 2) !== cells.i32[DONE_SEQ >> 2]) this.serveWhileBlocked();
  }

  ring(): void {
    const words = this.#machine.i32;
    Atomics.add(words, DOORBELL >> 2, 1);
    if (Atomics.load(words, HOST_ASLEEP >> 2) !== 0) Atomics.notify(words, DOORBELL >> 2);
  }

  #write(kind: number, sequence: number, size: number, address: bigint, value: bigint): void {
    const cells = this.#cells;
    cells.f64[(EXIT_COUNTS >> 3) + kind]!++;
    const head = cells.i32[RING_HEAD >> 2]!;
    let tail = Atomics.load(cells.i32, RING_TAIL >> 2);
    if (((head - tail) | 0) >= RING_RECORDS) {
      cells.f64[(EVENT_COUNTS >> 3) + EVENT_NAMES.indexOf("ring-full")]!++;
      this.block(() => {
        for (;;) {
          Atomics.store(cells.i32, RING_WAITING >> 2, 1);
          tail = Atomics.load(cells.i32, RING_TAIL >> 2);
          if (((head - tail) | 0) < RING_RECORDS) break;
          Atomics.wait(cells.i32, RING_TAIL >> 2, tail);
        }
        Atomics.store(cells.i32, RING_WAITING >> 2, 0);
      });
    }
    const at = recordAt(head);
    cells.i32[at >> 2] = kind;
    cells.i32[(at >> 2) + 1] = sequence;
    cells.i32[(at >> 2) + 2] = size;
    cells.u64[(at >> 3) + 2] = address;
    cells.u64[(at >> 3) + 3] = value;
    Atomics.store(cells.i32, RING_HEAD >> 2, (head + 1) | 0);
    this.ring();
  }
}

/** The host's end of the same hart. */
export class HostMailbox {
  readonly cells: HartCells;
  readonly #exit: Exit = { kind: 0, sequence: 0, size: 0, address: 0n, value: 0n };
  #tail = 0;

  constructor(cells: HartCells) {
    this.cells = cells;
    this.#tail = Atomics.load(cells.i32, RING_TAIL >> 2);
  }
  /** The oldest exit not taken yet, valid until the next call; undefined when there is none. */
  take(): Exit | undefined {
    const cells = this.cells;
    const head = Atomics.load(cells.i32, RING_HEAD >> 2);
    if (head === this.#tail) return undefined;
    const at = recordAt(this.#tail);
    const exit = this.#exit;
    exit.kind = cells.i32[at >> 2]!;
    exit.sequence = cells.i32[(at >> 2) + 1]!;
    exit.size = cells.i32[(at >> 2) + 2]!;
    exit.address = cells.u64[(at >> 3) + 2]!;
    exit.value = cells.u64[(at >> 3) + 3]!;
    this.#tail = (this.#tail + 1) | 0;
    Atomics.store(cells.i32, RING_TAIL >> 2, this.#tail);
    // A hart that found the ring full goes on when half of it is free: one wake-up for many records. Order matters: the
    // hart says that it waits before it looks at the tail, we move the tail before we look whether it waits.
    if (((head - this.#tail) | 0) <= RING_RECORDS / 2 && Atomics.load(cells.i32, RING_WAITING >> 2) !== 0) {
      Atomics.store(cells.i32, RING_WAITING >> 2, 0);
      Atomics.notify(cells.i32, RING_TAIL >> 2);
    }
    return exit;
  }
  /** The bytes of the CONSOLE_WRITE that was just taken (copied: the hart reuses the room). */
  postedData(length: number): Uint8Array {
    return this.cells.u8.slice(POST_DATA, POST_DATA + Math.min(length, POST_DATA_BYTES));
  }
  answer(sequence: number, status: number, value: bigint, data?: Uint8Array): void {
    const cells = this.cells;
    cells.i32[ANSWER_STATUS >> 2] = status;
    cells.u64[ANSWER_VALUE >> 3] = BigInt.asUintN(64, value);
    const bytes = data ? Math.min(data.length, ANSWER_DATA_BYTES) : 0;
    if (data) cells.u8.set(data.subarray(0, bytes), ANSWER_DATA);
    cells.i32[ANSWER_LENGTH >> 2] = bytes;
    Atomics.store(cells.i32, ANSWER >> 2, sequence);
    Atomics.notify(cells.i32, ANSWER >> 2);
  }
}

/**
 * Asks a hart for something. For FENCE_I and FLUSH_TLB the answer is a ticket for {@link served}; a sleeping hart needs no
 * wake-up for those, it serves them before it goes on.
 */
export function request(cells: HartCells, bits: number): number {
  Atomics.or(cells.i32, REQUESTS >> 2, bits);
  const ticket = (Atomics.add(cells.i32, REQUEST_SEQ >> 2, 1) + 1) | 0;
  if (bits & ~(Request.FENCE_I | Request.FLUSH_TLB) || Atomics.load(cells.i32, RUN_STATE >> 2) === RunState.RUNNING) wake(cells);
  return ticket;
}
/** Whether the fences of this ticket are in effect, or will be before the hart executes another guest instruction. */
export function served(cells: HartCells, ticket: number): boolean {
  if (Atomics.load(cells.i32, RUN_STATE >> 2) !== RunState.RUNNING) return true;
  return ((Atomics.load(cells.i32, DONE_SEQ >> 2) - ticket) | 0) >= 0;
}

/** Wakes a hart from WFI or a stopped state, and makes it look up at the next slice. */
export function wake(cells: HartCells): void {
  Atomics.store(cells.i32, ATTENTION >> 2, 1);
  Atomics.notify(cells.i32, ATTENTION >> 2);
}
