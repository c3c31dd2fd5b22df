import { ContractError, type Sink } from "@polyvisor/contracts";
import { InterruptLine, type CodeLine, type HartEvent, type HartState as HartStateMessage, type InterruptSignal, type PageWalk, type ReadProfileResponse } from "@polyvisor/contracts/cpu";
import type { DevicePort } from "@polyvisor/contracts/device";
import type { MapMemory, MemoryPort, SharedMemorySource } from "@polyvisor/contracts/memory";
import { HartCells, MachineCells } from "./cells.ts";
import { MEIP, SEIP } from "./csr.ts";
import { writeDebugTable } from "./debug/debug-table.ts";
import { GdbSession } from "./debug/gdb-session.ts";
import { takeHit } from "./debug/hart-debug.ts";
import type { DebugTarget } from "./debug/target.ts";
import { ExitLink } from "./exit-link.ts";
import { GuestTime } from "./guest-time.ts";
import { boot, ENGINES, type EngineName } from "./hart-loop.ts";
import { ENGINE, EXTERNAL_PENDING, INSTRET, REQUESTS } from "./hart-state.ts";
import { readHartState, writeHartState, type HartStatus } from "./hart-snapshot.ts";
import { decodeSavedHarts, encodeSavedHarts, restoreHart, saveHart } from "./saved-harts.ts";
import type { CpuFeatures } from "./cpu-features.ts";
import { isaString } from "./isa-string.ts";
import { hartStats, type HartReport } from "./hart-stats.ts";
import type { HartHost, HartThread } from "./host.ts";
import { Inspector } from "./inspect.ts";
import { PageLease } from "./lease.ts";
import {
  DONE_SEQ, DOORBELL, ENGINE_WANTED, HOST_ASLEEP, HostMailbox, HSM_STATE, IDLE_MS, PARK_MS, Request, request, RUN_STATE, RunState, served, STARTED_MS, STEP_BUDGET, STEP_FLAGS, StepFlag, STOP_KIND, wake,
} from "./mailbox.ts";
import { Privileged } from "./privileged.ts";
import { HartState } from "./sbi/hsm.ts";
import type { SavedTranslation, TranslationStore } from "./translations.ts";
import type { RecordedRegion } from "./translator/ahead/recording.ts";
import { glance, HaltPoll, SpinWait } from "./spin.ts";

export interface MachineSpec {
  readonly machine: string;
  readonly harts: number;
  readonly engine: EngineName;
  readonly firmware: "builtin" | "none";
  readonly entry: bigint;
  readonly deviceTree: bigint;
  readonly deterministic: boolean;
  readonly ramBase: bigint;
  readonly ramBytes: bigint;
  readonly features: CpuFeatures;
  /** Digests of what the machine starts from. */
  readonly code: readonly string[];
}

export interface MachinePeers {
  readonly memory: MemoryPort;
  readonly devices: DevicePort;
  readonly sharedMemory?: SharedMemorySource | undefined;
  readonly mapMemory?: MapMemory | undefined;
  /** Absent: engine `static` has nothing to begin with. */
  readonly translations?: TranslationStore | undefined;
}

export type MachineState = "created" | "running" | "paused" | "failed" | "destroyed";

/** How long a hart may take to reach an instruction boundary: its longest wait is a device answer. */
const PARK_TIMEOUT_MS = 8000;
const STOP_TIMEOUT_MS = 1000;
const REPORT_TIMEOUT_MS = 500;
/** Rounds of serving exits without letting the rest of the process have a turn. */
const ROUNDS_PER_TURN = 32;
/** How long the event loop polls instead of sleeping after an exit went to another process. */
const AWAKE_MS = 0.3;

interface Hart {
  readonly cells: HartCells;
  readonly core: Privileged;
  readonly thread: HartThread;
  readonly exits: ExitLink;
  report: HartReport;
  profile: [number, number][];
}

/** The host side of one machine's harts: threads, mailboxes, lease, exit streams, and their life cycle. */
export class Machine {
  readonly spec: MachineSpec;
  engine: EngineName;
  state: MachineState = "created";
  reason = "";
  readonly #peers: MachinePeers;
  readonly #host: HartHost;
  readonly #changed: (machine: Machine) => void;
  readonly #watchers = new Set<Sink<HartEvent>>();
  #lease!: PageLease;
  #cells!: MachineCells;
  #time!: GuestTime;
  #harts: Hart[] = [];
  #queue: Promise<unknown> = Promise.resolve();
  #created = false;
  #loaded = false;
  #debugger: GdbSession | undefined;

  private constructor(spec: MachineSpec, peers: MachinePeers, host: HartHost, changed: (machine: Machine) => void) {
    this.spec = spec;
    this.engine = spec.engine;
    this.#peers = peers;
    this.#host = host;
    this.#changed = changed;
  }

  /** Opens the page lease, lays out and boots the harts' state, starts their threads, parked. */
  static async create(spec: MachineSpec, peers: MachinePeers, host: HartHost, changed: (machine: Machine) => void): Promise<Machine> {
    const machine = new Machine(spec, peers, host, changed);
    try {
      await machine.#build();
    } catch (error) {
      await machine.destroy();
      throw error;
    }
    machine.#created = true;
    changed(machine);
    return machine;
  }

  async #build(): Promise<void> {
    const { spec } = this;
    this.#lease = await PageLease.open({
      machine: spec.machine,
      harts: spec.harts,
      ramBase: spec.ramBase,
      ramBytes: spec.ramBytes,
      memory: this.#peers.memory,
      sharedMemory: this.#peers.sharedMemory,
      mapMemory: this.#peers.mapMemory,
      flushHarts: () => this.#flushHarts(),
      onClose: (reason) => this.#fail(`page lease: ${reason}`),
    });
    const { memory, ram } = this.#lease;
    this.#cells = new MachineCells(memory.buffer);
    this.#cells.i32.fill(0);
    this.#time = new GuestTime(this.#cells, () => this.#host.hostMs(), spec.deterministic ? new HartCells(memory.buffer, 0) : undefined);
    this.#time.reset();
    const ready: Promise<void>[] = [];
    for (let index = 0; index < spec.harts; index++) {
      const cells = new HartCells(memory.buffer, index);
      cells.u8.fill(0, 0, ENGINE);
      const core = new Privileged(cells, this.#time, spec.features);
      boot(core, spec.firmware, spec.entry, spec.deviceTree);
      const exits = new ExitLink({
        machine: spec.machine, hart: index, mailbox: new HostMailbox(cells), lease: this.#lease,
        onClose: (reason) => this.#fail(`device-bus: ${reason}`),
      });
      const thread = this.#host.start({
        memory, hart: index, harts: spec.harts, ram, engine: spec.engine, builtinFirmware: spec.firmware === "builtin", deterministic: spec.deterministic, features: spec.features,
      });
      const hart: Hart = { cells, core, thread, exits, report: {}, profile: [] };
      thread.onFailure((reason) => this.#fail(reason));
      this.#harts.push(hart);
      ready.push(thread.ready);
    }
    this.#loadTranslation();
    await Promise.all(ready).catch((error: unknown) => {
      throw new ContractError("internal", `createHarts: a hart could not start: ${String(error)}`, { cause: error });
    });
    await Promise.all(this.#harts.map((hart) => this.#parked(hart)));
    void this.#serveExits();
  }
  /** Once: hart 0's regions that were made ahead. Until they are there, and where there are none, code is translated as it gets hot. */
  #loadTranslation(): void {
    if (this.engine !== "static" || this.#loaded) return;
    this.#loaded = true;
    void this.#peers.translations?.find(this.spec.code).then((translation) => translation && this.#harts[0]?.thread.load(translation));
  }

  /** What the harts' engine `recording` wrote down, translated and kept. */
  async saveTranslation(): Promise<SavedTranslation> {
    this.#usable("saveTranslation");
    const { machine, code } = this.spec;
    if (!this.#peers.translations || code.length === 0) {
      throw new ContractError("precondition", `saveTranslation: ${this.#peers.translations ? `it is not known what ${machine} was started from` : "this service knows no image-registry"}`);
    }
    const regions: RecordedRegion[] = [];
    await this.#askHarts<RecordedRegion[]>(Request.RECORDING, ({ thread }, done) => thread.onRecording(done), (_, recorded) => void regions.push(...recorded));
    if (regions.length === 0) throw new ContractError("precondition", `saveTranslation: nothing has been recorded of ${machine}; run it with engine recording first`);
    return this.#peers.translations.save(code, regions);
  }

  /** One operation at a time, in the order asked. */
  #exclusive<T>(operation: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(operation);
    this.#queue = result.catch(() => {});
    return result;
  }
  #usable(what: string): void {
    if (this.state === "failed") throw new ContractError("precondition", `${what}: the harts of ${this.spec.machine} failed: ${this.reason}; destroy them and create them again`);
    if (this.state === "destroyed") throw new ContractError("not-found", `${what}: the harts of ${this.spec.machine} are destroyed`);
  }

  run(): Promise<void> {
    return this.#exclusive(async () => {
      this.#usable("runHarts");
      if (this.state === "running") return;
      for (const { exits } of this.#harts) exits.open(this.#peers.devices, () => this.#ring());
      this.#usable("runHarts"); // opening may have failed
      this.#time.thaw();
      for (const { cells } of this.#harts) {
        if (this.state === "created") {
          cells.f64[STARTED_MS >> 3] = this.#host.hostMs();
          cells.f64[PARK_MS >> 3] = cells.f64[IDLE_MS >> 3] = 0;
        }
        request(cells, Request.RUN);
      }
      this.#become("running");
    });
  }

  pause(): Promise<void> {
    return this.#exclusive(async () => {
      this.#usable("pauseHarts");
      if (this.state !== "running") return;
      for (const { cells } of this.#harts) request(cells, Request.PAUSE);
      await Promise.all(this.#harts.map((hart) => this.#parked(hart)));
      for (const { exits } of this.#harts) exits.drain();
      this.#time.freeze();
      this.#usable("pauseHarts");
      this.#become("paused");
    });
  }

  step(index: number, instructions: bigint): Promise<{ state: HartStateMessage; executed: bigint }> {
    return this.#exclusive(async () => {
      const hart = this.#paused(index, "stepHart");
      if (instructions < 0n || instructions > 0xffff_ffffn) {
        throw new ContractError("out-of-range", `stepHart: ${instructions} instructions; at most 4294967295 at a time`);
      }
      const before = hart.cells.u64[INSTRET >> 3]!;
      await this.#stepHart(hart, Number(instructions), 0);
      return { state: this.#snapshot(hart), executed: hart.cells.u64[INSTRET >> 3]! - before };
    });
  }

  /** Of a running hart: as of some recent slice boundary, for display. */
  read(index: number): HartStateMessage {
    return this.#snapshot(this.#hart(index, "readHart"));
  }
  write(state: HartStateMessage): Promise<void> {
    return this.#exclusive(async () => writeHartState(this.#paused(state.hart, "writeHart").core, state));
  }

  /** The state of all harts, which must stand still. */
  save(): Promise<Uint8Array> {
    return this.#exclusive(async () => {
      this.#paused(0, "saveHarts");
      // What the harts have posted is part of the board's state, wherever it is now.
      const fenced = Promise.all(this.#harts.map(({ exits }) => exits.fence())).then(() => true);
      if (!(await Promise.race([fenced, this.#host.delay(PARK_TIMEOUT_MS)]))) {
        throw new ContractError("timeout", `saveHarts: the device-bus did not finish the exits of ${this.spec.machine} in ${PARK_TIMEOUT_MS} ms`);
      }
      this.#usable("saveHarts");
      return encodeSavedHarts({ isa: isaString(this.spec.features), time: BigInt(this.#time.ticks()), harts: this.#harts.map(({ core }) => saveHart(core)) });
    });
  }
  /** All or nothing: a blob that does not fit changes no hart. */
  restore(blob: Uint8Array): Promise<void> {
    return this.#exclusive(async () => {
      this.#paused(0, "restoreHarts");
      const saved = decodeSavedHarts(blob);
      if (saved.harts.length !== this.#harts.length) {
        throw new ContractError("invalid", `restoreHarts: the state has ${saved.harts.length} harts, ${this.spec.machine} has ${this.#harts.length}; create it with as many`);
      }
      const time = this.#time.ticks();
      const before = this.#harts.map(({ cells }) => cells.u8.slice());
      try {
        this.#harts.forEach(({ core }, index) => restoreHart(core, saved.harts[index]!));
        this.#time.restore(Number(saved.time)); // after the counts: virtual time is made of them
        for (const { core } of this.#harts) core.refreshTimers();
      } catch (error) {
        this.#harts.forEach(({ cells }, index) => cells.u8.set(before[index]!));
        this.#time.restore(time);
        throw error;
      }
    });
  }

  /** Attaches a debugger; one at a time. */
  openDebugger(send: (packet: Uint8Array) => void): GdbSession {
    this.#usable("debug");
    if (this.#debugger) throw new ContractError("conflict", `debug: another debugger is attached to ${this.spec.machine}; detach it first`);
    return (this.#debugger = new GdbSession(this.#debugTarget(), send, () => (this.#debugger = undefined)));
  }
  #debugTarget(): DebugTarget {
    const { machine, ramBase, ramBytes } = this.spec;
    const isRam = (address: bigint, length: number): boolean => address >= ramBase && address + BigInt(length) <= ramBase + ramBytes;
    return {
      name: machine,
      harts: this.#harts.map(({ core }) => core),
      running: () => this.state === "running",
      pause: () => this.pause(),
      run: () => this.run(),
      step: (harts, interrupts) => this.#exclusive(() => this.#debugStep(harts, interrupts)),
      readPhysical: async (address, length) =>
        isRam(address, length) ? (await this.#peers.memory.readMemory({ machine, address, length })).data : undefined,
      writePhysical: async (address, data) => {
        if (isRam(address, data.length)) await this.#peers.memory.writeMemory({ machine, address, data });
        return isRam(address, data.length);
      },
      setTable: (entries) => writeDebugTable(this.#lease.memory.buffer, entries),
      takeHit: (hart) => takeHit(this.#harts[hart]!.cells),
      status: (hart) => this.#status(this.#harts[hart]!),
    };
  }
  async #debugStep(harts: readonly number[], interrupts: boolean): Promise<void> {
    for (const index of harts) {
      const hart = this.#paused(index, "debug");
      await this.#stepHart(hart, 1, interrupts ? 0 : StepFlag.NO_INTERRUPTS);
      if (Atomics.load(hart.cells.i32, STOP_KIND >> 2) !== 0) return;
    }
  }
  async #stepHart(hart: Hart, instructions: number, flags: number): Promise<void> {
    hart.exits.open(this.#peers.devices, () => this.#ring());
    hart.cells.u32[STEP_BUDGET >> 2] = instructions;
    hart.cells.i32[STEP_FLAGS >> 2] = flags;
    request(hart.cells, Request.STEP);
    await this.#until(hart, "step", () => isParked(hart), Infinity);
    hart.exits.drain();
  }

  /** Takes effect at each hart's next slice boundary; the architectural state is the same in all engines. */
  setEngine(engine: EngineName): Promise<void> {
    return this.#exclusive(async () => {
      this.#usable("setEngine");
      this.engine = engine;
      for (const { cells, thread } of this.#harts) {
        thread.prepare(engine);
        Atomics.store(cells.i32, ENGINE_WANTED >> 2, ENGINES.indexOf(engine));
        request(cells, Request.ENGINE);
      }
      this.#loadTranslation();
    });
  }

  async stats(): Promise<ReturnType<typeof hartStats>[]> {
    await this.#askHarts<HartReport>(Request.REPORT, ({ thread }, done) => thread.onReport(done), (hart, events) => (hart.report = events));
    return this.#harts.map(({ cells, report }) => hartStats(cells, report, this.#host.hostMs(), this.#lease.pagesAcquired));
  }

  /** Where all harts together have spent their time (profile.ts). */
  async profile(most: number): Promise<ReadProfileResponse> {
    await this.#askHarts<Hart["profile"]>(Request.PROFILE, ({ thread }, done) => thread.onProfile(done), (hart, entries) => (hart.profile = entries));
    const entries = this.#harts.flatMap(({ profile }) => profile);
    const engine = new Map<string, bigint>();
    for (const { events } of await this.stats()) for (const [name, count] of events) engine.set(name, (engine.get(name) ?? 0n) + count);
    return { ...(await this.#inspector.profile(entries, most)), engine, engineName: this.engine };
  }
  walk(hart: number, address: bigint): Promise<PageWalk> {
    return this.#inspector.walk(this.#hart(hart, "walkAddress").core, address);
  }
  code(hart: number, address: bigint | undefined, count: number): Promise<CodeLine[]> {
    return this.#inspector.code(this.#hart(hart, "readCode").core, address, count);
  }
  get #inspector(): Inspector {
    return new Inspector(this.#debugTarget());
  }
  /** Asks all harts for something that they post. One that waits for a device answers late: its last answer stands in. */
  async #askHarts<T>(bit: number, listen: (hart: Hart, done: (answer: T) => void) => void, take: (hart: Hart, answer: T) => void): Promise<void> {
    if (this.state === "failed") return;
    await Promise.all(
      this.#harts.map((hart) => {
        const answered = new Promise<void>((resolve) =>
          listen(hart, (answer) => {
            take(hart, answer);
            resolve();
          }),
        );
        request(hart.cells, bit);
        return Promise.race([answered, this.#host.delay(REPORT_TIMEOUT_MS)]);
      }),
    );
  }

  /** Drives one line of one hart. Visible to the hart when this returns. False: no such hart or line. */
  signal({ hart, line, level }: InterruptSignal): boolean {
    const cells = this.#harts[hart]?.cells;
    const bit = line === InterruptLine.SUPERVISOR_EXTERNAL ? SEIP : line === InterruptLine.MACHINE_EXTERNAL ? MEIP : 0;
    if (!cells || bit === 0) return false;
    if (level) {
      const old = Atomics.or(cells.i32, EXTERNAL_PENDING >> 2, bit);
      if (!(old & bit)) wake(cells);
    } else Atomics.and(cells.i32, EXTERNAL_PENDING >> 2, ~bit);
    return true;
  }

  watch(out: Sink<HartEvent>): void {
    this.#watchers.add(out);
    out.onClose(() => this.#watchers.delete(out));
    out.send(this.#event());
  }

  /** Ends threads, streams and lease. Idempotent. An operation that waits for a hart is cut short. */
  destroy(): Promise<void> {
    if (this.state === "destroyed") return this.#exclusive(async () => {});
    this.state = "destroyed";
    this.#debugger?.ended(false);
    return this.#exclusive(async () => {
      await this.#stopThreads();
      this.#lease?.close();
      if (this.#created) this.#changed(this);
      for (const out of this.#watchers) {
        out.send(this.#event());
        out.close();
      }
    });
  }

  async #stopThreads(): Promise<void> {
    for (const { cells, exits } of this.#harts) {
      exits.close();
      request(cells, Request.STOP);
    }
    await Promise.all(
      this.#harts.map(async (hart) => {
        const exited = (): boolean => Atomics.load(hart.cells.i32, RUN_STATE >> 2) === RunState.EXITED;
        const end = this.#host.hostMs() + STOP_TIMEOUT_MS; // terminate ends it in any case, but may cut an instruction
        while (!exited() && this.#host.hostMs() < end) await this.#runStateChange(hart, exited);
        await hart.thread.terminate();
      }),
    );
    if (this.#harts.length > 0) this.#ring(); // the serving loop sees the state and ends
  }

  /** The harts cannot go on: they stop, and the machine says why. Never throws. */
  #fail(reason: string): void {
    if (this.state === "failed" || this.state === "destroyed") return;
    this.reason = reason;
    this.#become("failed");
    this.#debugger?.ended(true);
    void this.#stopThreads().then(() => this.#lease?.close());
  }
  #become(state: MachineState): void {
    this.state = state;
    this.#changed(this);
    for (const out of this.#watchers) out.send(this.#event());
  }
  #event(): HartEvent {
    return { machine: this.spec.machine, state: this.state, reason: this.reason };
  }

  /** Forwards exits whenever a hart rings; one loop per machine. */
  async #serveExits(): Promise<void> {
    const words = this.#cells.i32;
    const spin = new SpinWait(800); // ~25 µs: this thread has other work
    const poll = new HaltPoll();
    let awakeUntil = 0;
    let quietSince = 0;
    for (let rounds = 0; this.state !== "destroyed" && this.state !== "failed"; rounds++) {
      const seen = Atomics.load(words, DOORBELL >> 2);
      Atomics.store(words, HOST_ASLEEP >> 2, 0);
      let rang = false;
      for (const { exits } of this.#harts) rang = exits.drain() || rang;
      if (this.#debugger && this.#harts.some(({ cells }) => Atomics.load(cells.i32, STOP_KIND >> 2) !== 0)) this.#debugger.stopped();
      if (rang) {
        if (quietSince !== 0) poll.waited(this.#host.hostMs() - quietSince);
        quietSince = 0;
        // The answer comes over a socket: stay awake for it and for the next exit, see SpinWait.
        if (this.#harts.some(({ exits }) => exits.waiting)) awakeUntil = this.#host.hostMs() + AWAKE_MS;
        // A hart that was answered at once often asks again at once.
        else spin.until(words, DOORBELL >> 2, seen);
      }
      if (Atomics.load(words, DOORBELL >> 2) === seen) {
        const now = this.#host.hostMs();
        if (quietSince === 0) quietSince = now;
        if (now < awakeUntil || now < quietSince + poll.windowMs) {
          rounds = 0;
          const rung = glance(words, DOORBELL >> 2, seen);
          if (poll.looked(this.#host.hostMs() - now) && !rung) await this.#host.turn();
          continue;
        }
      }
      Atomics.store(words, HOST_ASLEEP >> 2, 1);
      const rung = Atomics.waitAsync(words, DOORBELL >> 2, seen);
      if (rung.async) {
        rounds = 0;
        await rung.value;
      } else if (rounds >= ROUNDS_PER_TURN) {
        // A guest that never stops ringing must not keep everybody else in this process from working.
        rounds = 0;
        await this.#host.turn();
      }
    }
    for (const { exits } of this.#harts) exits.drain();
  }
  #ring(): void {
    Atomics.add(this.#cells.i32, DOORBELL >> 2, 1);
    Atomics.notify(this.#cells.i32, DOORBELL >> 2);
  }

  async #flushHarts(): Promise<void> {
    const tickets = this.#harts.map((hart) => ({ hart, ticket: request(hart.cells, Request.FLUSH_TLB) }));
    for (const { hart, ticket } of tickets) {
      while (!served(hart.cells, ticket)) {
        const done = Atomics.load(hart.cells.i32, DONE_SEQ >> 2);
        if (served(hart.cells, ticket)) break;
        await Atomics.waitAsync(hart.cells.i32, DONE_SEQ >> 2, done, 5).value;
      }
    }
  }

  #parked(hart: Hart): Promise<void> {
    return this.#until(hart, "reach an instruction boundary", () => isParked(hart), PARK_TIMEOUT_MS);
  }
  /** Waits for a hart's run state to satisfy `done`. */
  async #until(hart: Hart, what: string, done: () => boolean, timeoutMs: number): Promise<void> {
    const end = this.#host.hostMs() + timeoutMs;
    while (!done()) {
      this.#usable(what);
      if (this.#host.hostMs() > end) throw new ContractError("timeout", `${this.spec.machine}: hart ${hart.cells.hart} did not ${what} in ${timeoutMs} ms`);
      await this.#runStateChange(hart, done);
    }
  }
  /** Returns when the run state has changed, and now and then without. */
  async #runStateChange(hart: Hart, done: () => boolean): Promise<void> {
    const state = Atomics.load(hart.cells.i32, RUN_STATE >> 2);
    if (done()) return;
    const change = Atomics.waitAsync(hart.cells.i32, RUN_STATE >> 2, state, 20);
    if (change.async) await change.value;
    else await this.#host.turn();
  }

  #hart(index: number, what: string): Hart {
    if (this.state === "destroyed") this.#usable(what);
    const hart = this.#harts[index];
    if (!hart) throw new ContractError("not-found", `${what}: ${this.spec.machine} has harts 0 to ${this.#harts.length - 1}, not ${index}`);
    return hart;
  }
  #paused(index: number, what: string): Hart {
    this.#usable(what);
    const hart = this.#hart(index, what);
    if (this.state === "running") throw new ContractError("precondition", `${what}: the harts of ${this.spec.machine} are running; pause them first`);
    return hart;
  }
  #snapshot(hart: Hart): HartStateMessage {
    return readHartState(hart.core, this.#status(hart));
  }
  #status({ cells }: Hart): HartStatus {
    if (this.state === "failed") return "failed";
    if (this.state !== "running") return "paused";
    if (Atomics.load(cells.i32, HSM_STATE >> 2) === HartState.STOPPED) return "stopped";
    return cells.f64[PARK_MS >> 3]! > 0 ? "waiting" : "running";
  }
}

/** Parked, and with nothing asked of it that would make it run. */
function isParked({ cells }: Hart): boolean {
  const pending = Atomics.load(cells.i32, REQUESTS >> 2) & (Request.RUN | Request.STEP | Request.PAUSE);
  return pending === 0 && Atomics.load(cells.i32, RUN_STATE >> 2) === RunState.PARKED;
}
