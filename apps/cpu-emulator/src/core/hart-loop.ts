import type { HartCells } from "./cells.ts";
import type { HartDebug } from "./debug/hart-debug.ts";
import { DEBUG_CAUSE, ExitReason, type Engine } from "./engine.ts";
import type { GuestTime } from "./guest-time.ts";
import { ATTENTION, INSTRET, REQUESTS, TRAP_CAUSE, X } from "./hart-state.ts";
import {
  DONE_SEQ, ENGINE_WANTED, EVENT_COUNTS, EVENT_NAMES, EXIT_COUNTS, HSM_ADDRESS, HSM_OPAQUE, HSM_STATE, IDLE_MS,
  PARK_MS, Request, REQUEST_SEQ, RUN_STATE, RunState, STEP_BUDGET, STEP_FLAGS, StepFlag, STOP_ADDRESS, STOP_KIND, WFI_COUNT, type HartMailbox,
} from "./mailbox.ts";
import { countGivenUp } from "./physical.ts";
import { Profile } from "./profile.ts";
import type { Privileged } from "./privileged.ts";
import { HartState, isSuspended } from "./sbi/hsm.ts";
import type { RecordedRegion } from "./translator/ahead/recording.ts";
import type { DynamicEngine } from "./translator/engine.ts";
import { enterSupervisor } from "./sbi/sbi.ts";
import type { Settling } from "./settling.ts";
import { HaltPoll } from "./spin.ts";

/** Engines by the names of CreateHarts and SetEngine; the index goes through ENGINE_WANTED. */
export const ENGINES = ["interpreter", "reference", "dynamic", "static", "recording"] as const;
export type EngineName = (typeof ENGINES)[number];
export const DEFAULT_ENGINE: EngineName = "dynamic";

/**
 * Instructions between two looks at interrupts and requests: ~40 µs at 500 MIPS, so an interrupt waits less than the
 * thread wake-up that announces it, and the ~150 ns of one turn of the loop stay under 0.5 %.
 */
const SLICE = 20_000;
/** The reference engine is ~200 times slower; the same latency in time needs a smaller slice. */
const REFERENCE_SLICE = 500;
/** Deterministic time: instructions between two looks at interrupts, 400 µs of the guest's time at most. */
const LOOK_EVERY = 20_000;
/** Atomics.wait takes no more than this; the loop goes round again. */
const LONGEST_SLEEP_MS = 60_000;

export interface HartParts {
  readonly cells: HartCells;
  readonly core: Privileged;
  readonly time: GuestTime;
  readonly mailbox: HartMailbox;
  readonly debug: HartDebug;
  /** Of a deterministic machine. */
  readonly settling: Settling | undefined;
  readonly engine: EngineName;
  /** Makes an engine over this hart's cells and MMU; called once per name. `engine` answers those it builds on. */
  createEngine(name: EngineName, engine: (name: EngineName) => Engine): Engine;
  /** Answers a REPORT request: the engines' numbers, to the host. */
  report(events: Record<string, number>): void;
  /** Answers a PROFILE request: Profile.entries. */
  profile(entries: [number, number][]): void;
  /** Answers a RECORDING request. */
  recording(regions: RecordedRegion[]): void;
}

/** One hart's thread: slices of guest code, and between them interrupts, requests, sleep. */
export class HartLoop {
  readonly #parts: HartParts;
  readonly #cells: HartCells;
  readonly #core: Privileged;
  readonly #profile: Profile;
  readonly #poll = new HaltPoll();
  /** Deterministic time: count of instructions at which interrupts are looked at next. */
  #nextLook = -1;
  readonly #engines = new Map<EngineName, Engine>();
  #engine: Engine;

  constructor(parts: HartParts) {
    this.#parts = parts;
    this.#cells = parts.cells;
    this.#core = parts.core;
    this.#profile = new Profile(parts.cells);
    this.#engine = this.#engineNamed(parts.engine);
    parts.mailbox.serveWhileBlocked = () => {
      countGivenUp(this.#cells);
      this.#serveFences();
    };
  }

  fenceI(): void {
    for (const engine of this.#engines.values()) engine.fenceI();
  }
  flushTlb(): void {
    for (const engine of this.#engines.values()) engine.flushTlb();
  }

  /** Runs until a STOP request. Begins parked. */
  run(): void {
    const words = this.#cells.i32;
    const counts = this.#cells.f64;
    const slices = (EVENT_COUNTS >> 3) + EVENT_NAMES.indexOf("slice");
    if (this.#park()) return this.#exit();
    for (;;) {
      if (Atomics.load(words, ATTENTION >> 2) !== 0 && !this.#ending() && this.#attend()) return this.#exit();
      if (words[HSM_STATE >> 2] !== HartState.STARTED && !this.#started()) continue;
      counts[slices]!++;
      if (this.#parts.time.virtual) this.#virtualSlice(this.#engine);
      else this.#slice(this.#engine, this.#engine.name === "reference" ? REFERENCE_SLICE : SLICE);
      if (this.#parts.debug.hit && this.#stopForDebugger()) return this.#exit();
    }
  }

  /** Interrupts, then guest code until the engine returns. */
  #slice(engine: Engine, budget: number): void {
    const core = this.#core;
    core.refreshTimers();
    core.takeInterrupt();
    core.leave = false;
    switch (engine.run(budget)) {
      case ExitReason.TRAP:
        this.#trapped();
        break;
      case ExitReason.WFI:
        this.#sleepUntilInterrupt();
        break;
      case ExitReason.BUDGET:
        this.#profile.sample();
        break;
    }
  }

  /**
   * Deterministic time: interrupts are looked at when the count of instructions reaches a multiple of LOOK_EVERY, and in WFI, never
   * where an engine happens to return; so all engines take them at the same instruction.
   */
  #virtualSlice(engine: Engine): void {
    const core = this.#core;
    const count = this.#cells.asNumber(INSTRET);
    if (this.#nextLook < 0) this.#nextLook = Math.ceil(count / LOOK_EVERY) * LOOK_EVERY; // harts may be restored
    if (count >= this.#nextLook) {
      this.#parts.settling?.look(this.#parts.time.ticks());
      if (this.#stopsWithBoard()) return;
      core.refreshTimers();
      core.takeInterrupt();
      this.#nextLook = count - (count % LOOK_EVERY) + LOOK_EVERY;
    }
    core.leave = false;
    switch (engine.run(Math.min(this.#nextLook - count, engine.name === "reference" ? REFERENCE_SLICE : LOOK_EVERY))) {
      case ExitReason.TRAP:
        this.#trapped();
        break;
      case ExitReason.WFI:
        this.#skipToInterrupt();
        core.takeInterrupt();
        break;
      case ExitReason.BUDGET:
        this.#profile.sample();
        break;
    }
  }
  /**
   * How far a hart comes after it has powered the machine off must not depend on when somebody asks or stops it: to the next look, and
   * until then it hears nobody.
   */
  #ending(): boolean {
    return this.#parts.settling?.ended === true && this.#cells.i32[HSM_STATE >> 2] === HartState.STARTED;
  }
  #stopsWithBoard(): boolean {
    if (!this.#ending()) return false;
    Atomics.store(this.#cells.i32, HSM_STATE >> 2, HartState.STOPPED);
    return true;
  }
  /** WFI costs no time of the host: the guest's clock goes to its next timer. Without one, somebody outside must act. */
  #skipToInterrupt(): void {
    const core = this.#core;
    const { time, settling } = this.#parts;
    this.#cells.f64[(EXIT_COUNTS >> 3) + WFI_COUNT]!++;
    settling?.look(time.ticks());
    if (this.#stopsWithBoard()) return;
    core.refreshTimers();
    if (core.wakes()) return;
    const timer = Math.min(core.nextTimer(), settling?.deadline ?? Infinity);
    if (timer === Infinity) this.#sleep(LONGEST_SLEEP_MS);
    else time.set(Math.max(timer, time.ticks()));
    settling?.look(time.ticks());
    core.refreshTimers();
  }

  /** Takes the trap that an engine left, or lets the debugger have its look. */
  #trapped(): void {
    if (this.#cells.i32[TRAP_CAUSE >> 2] !== DEBUG_CAUSE) return this.#core.takeTrap();
    this.#parts.debug.pass(() => {
      // A WFI that does not sleep is within the specification.
      if (this.#engineNamed("reference").run(1) === ExitReason.TRAP) this.#core.takeTrap();
    });
  }

  /** A breakpoint or watchpoint was hit: tells the host and parks. True: STOP. */
  #stopForDebugger(): boolean {
    this.#publishHit();
    return this.#park();
  }
  #publishHit(): void {
    const { debug, mailbox } = this.#parts;
    if (!debug.hit) return;
    this.#cells.u64[STOP_ADDRESS >> 3] = debug.hit.address;
    Atomics.store(this.#cells.i32, STOP_KIND >> 2, debug.hit.kind + 1);
    debug.hit = undefined;
    mailbox.ring();
  }

  #sleepUntilInterrupt(): void {
    const core = this.#core;
    this.#cells.f64[(EXIT_COUNTS >> 3) + WFI_COUNT]!++;
    core.refreshTimers();
    if (core.wakes()) return;
    const timer = core.nextTimer();
    const ms = timer === Infinity ? LONGEST_SLEEP_MS : Math.min(this.#parts.time.msUntil(timer), LONGEST_SLEEP_MS);
    if (ms > 0) this.#sleep(ms);
  }
  /** Asleep until somebody asks for attention, or for `ms`. A WFI that ends early is within the specification. */
  #sleep(ms: number): void {
    const words = this.#cells.i32;
    const slept = this.#idle((start) =>
      this.#parts.mailbox.block(() => {
        const end = start + Math.min(this.#poll.windowMs, ms);
        for (let now = start; now < end; ) {
          if (Atomics.load(words, ATTENTION >> 2) !== 0) return;
          Atomics.pause();
          const before = now;
          now = this.#parts.time.hostMs();
          if (!this.#poll.looked(now - before)) break;
        }
        Atomics.wait(words, ATTENTION >> 2, 0, ms);
      }),
    );
    this.#poll.waited(slept);
  }
  /** Answers how long it was, in milliseconds. */
  #idle(sleep: (start: number) => void): number {
    const { f64 } = this.#cells;
    const start = (f64[PARK_MS >> 3] = this.#parts.time.hostMs());
    sleep(start);
    const slept = this.#parts.time.hostMs() - start;
    f64[IDLE_MS >> 3]! += slept;
    f64[PARK_MS >> 3] = 0;
    return slept;
  }

  /** SBI HSM: false while the hart is stopped or suspended (after a sleep), true once it goes on. */
  #started(): boolean {
    const cells = this.#cells;
    const state = Atomics.load(cells.i32, HSM_STATE >> 2);
    if (isSuspended(state)) {
      if (this.#parts.time.virtual) this.#skipToInterrupt();
      else this.#sleepUntilInterrupt();
      this.#core.refreshTimers();
      if (!this.#core.wakes()) return false;
    } else if (state !== HartState.START_PENDING) {
      this.#sleep(LONGEST_SLEEP_MS);
      return false;
    }
    if (state !== HartState.SUSPENDED) {
      enterSupervisor(this.#core, cells.u64[HSM_ADDRESS >> 3]!, BigInt(cells.hart), cells.u64[HSM_OPAQUE >> 3]!);
      this.flushTlb();
      this.fenceI();
    }
    Atomics.store(cells.i32, HSM_STATE >> 2, HartState.STARTED);
    return true;
  }

  /** Serves requests; true: end the thread. */
  #attend(): boolean {
    const words = this.#cells.i32;
    Atomics.store(words, ATTENTION >> 2, 0);
    this.#serveFences();
    const bits = Atomics.load(words, REQUESTS >> 2);
    if (bits === 0) return false;
    if (this.#serveOutsideGuest(bits)) return true;
    return (bits & Request.PAUSE) !== 0 && this.#park();
  }

  /** Requests that can be served parked or not; true: STOP. */
  #serveOutsideGuest(bits: number): boolean {
    if (bits & Request.ENGINE) {
      this.#take(Request.ENGINE);
      this.#engine.leave?.();
      this.#engine = this.#engineNamed(ENGINES[Atomics.load(this.#cells.i32, ENGINE_WANTED >> 2)] ?? this.#parts.engine);
    }
    if (bits & Request.REPORT) {
      this.#take(Request.REPORT);
      const events: Record<string, number> = {};
      for (const engine of this.#engines.values()) {
        for (const [name, count] of Object.entries(engine.events())) events[name] = (events[name] ?? 0) + count;
      }
      this.#parts.report(events);
    }
    if (bits & Request.PROFILE) {
      this.#take(Request.PROFILE);
      this.#parts.profile(this.#profile.entries());
    }
    if (bits & Request.RECORDING) {
      this.#take(Request.RECORDING);
      this.#parts.recording((this.#engines.get("dynamic") as DynamicEngine | undefined)?.recorded ?? []);
    }
    return (bits & Request.STOP) !== 0;
  }

  /** Parked until RUN (false) or STOP (true). STEP executes and parks again. */
  #park(): boolean {
    const words = this.#cells.i32;
    this.#take(Request.PAUSE);
    for (;;) {
      this.#state(RunState.PARKED);
      this.#idle(() => Atomics.wait(words, ATTENTION >> 2, 0));
      Atomics.store(words, ATTENTION >> 2, 0);
      const bits = Atomics.load(words, REQUESTS >> 2);
      if (this.#serveOutsideGuest(bits)) return true;
      if (bits & Request.PAUSE && !(bits & Request.RUN)) this.#take(Request.PAUSE); // parked already: a debugger's stop
      if (bits & (Request.RUN | Request.STEP)) {
        this.#state(RunState.RUNNING);
        this.#serveFences();
        this.#parts.debug.load();
        this.#core.pmp.changed(); // the host may have written cells
        this.#core.translation.flushTlb();
        this.#core.translation.contextChanged();
        this.fenceI(); // and memory: a snapshot, a debugger's breakpoint
        if (bits & Request.RUN) {
          this.#take(Request.RUN);
          Atomics.store(words, ATTENTION >> 2, 1); // a PAUSE may have come with it
          return false;
        }
        this.#step();
        this.#take(Request.STEP);
      }
    }
  }

  /** Exact to the instruction, so always on the reference engine. Time does not pass while stepping. */
  #step(): void {
    const engine = this.#engineNamed("reference");
    const { debug } = this.#parts;
    const interrupts = !(this.#cells.i32[STEP_FLAGS >> 2]! & StepFlag.NO_INTERRUPTS);
    for (let left = this.#cells.u32[STEP_BUDGET >> 2]!; left > 0; left--) {
      if (this.#cells.i32[HSM_STATE >> 2] !== HartState.STARTED) {
        if (Atomics.load(this.#cells.i32, HSM_STATE >> 2) !== HartState.START_PENDING) break;
        this.#started();
      }
      if (Atomics.load(this.#cells.i32, REQUESTS >> 2) & Request.STOP) break;
      const core = this.#core;
      core.refreshTimers();
      if (interrupts) core.takeInterrupt();
      core.leave = false;
      if (engine.run(1) === ExitReason.TRAP) this.#trapped();
      if (debug.hit) break;
    }
    this.#publishHit();
    this.fenceI(); // the reference engine may have written code that the other one has decoded
  }

  /** FENCE_I and FLUSH_TLB, from a slice boundary or from a sleep. */
  #serveFences(): void {
    const words = this.#cells.i32;
    const ticket = Atomics.load(words, REQUEST_SEQ >> 2);
    const bits = Atomics.and(words, REQUESTS >> 2, ~(Request.FENCE_I | Request.FLUSH_TLB));
    if (bits & Request.FLUSH_TLB) this.flushTlb(); // first: fence.i reads pages that are fetched from, some may have been given up
    if (bits & Request.FENCE_I) this.fenceI();
    if (Atomics.exchange(words, DONE_SEQ >> 2, ticket) !== ticket) Atomics.notify(words, DONE_SEQ >> 2);
  }
  #take(bit: number): void {
    Atomics.and(this.#cells.i32, REQUESTS >> 2, ~bit);
  }
  #state(state: number): void {
    Atomics.store(this.#cells.i32, RUN_STATE >> 2, state);
    Atomics.notify(this.#cells.i32, RUN_STATE >> 2);
    Atomics.notify(this.#cells.i32, DONE_SEQ >> 2);
  }
  #exit(): void {
    this.#state(RunState.EXITED);
  }
  #engineNamed(name: EngineName): Engine {
    let engine = this.#engines.get(name);
    if (!engine) this.#engines.set(name, (engine = this.#parts.createEngine(name, (other) => this.#engineNamed(other))));
    return engine;
  }
}

/** How a hart enters its first instruction (CreateHarts). */
export function boot(core: Privileged, firmware: "builtin" | "none", entry: bigint, deviceTree: bigint): void {
  const { cells } = core;
  const hart = BigInt(cells.hart);
  if (firmware === "none") {
    core.reset(entry, hart, deviceTree); // M-mode; every hart starts (OpenSBI elects one)
    cells.i32[HSM_STATE >> 2] = HartState.STARTED;
  } else {
    enterSupervisor(core, entry, hart, deviceTree);
    cells.i32[HSM_STATE >> 2] = cells.hart === 0 ? HartState.STARTED : HartState.STOPPED;
  }
  cells.u64[X >> 3] = 0n;
}
