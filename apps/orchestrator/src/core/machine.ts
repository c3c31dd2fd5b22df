import { asContractError, ContractError } from "@polyvisor/contracts";
import { type Machine as MachineView, MachineState, type ReadMachineStatsResponse, type StartProgress } from "@polyvisor/contracts/orchestrator";
import type { ServiceContext } from "@polyvisor/service-kit";
import { AGENT_CONSOLE } from "./boot-plan.ts";
import { type MachineFact, publishFact, stateName } from "./facts.ts";
import type { GuestAgent } from "./guest-agent.ts";
import { tohostOf } from "./kernel-file.ts";
import { type GuestEnd, LiveMachine } from "./live-machine.ts";
import type { MachineRecord, MachineStore } from "./machine-store.ts";
import { servicesServing } from "./list-services.ts";
import type { OrchestratorPeers } from "./peers.ts";
import { bytesOf, letGoOn, pinState, savedOwner, saveState, standStill, type SavedState } from "./saved-machine.ts";
import { type Stage, startMachine } from "./start-machine.ts";
import { teardown } from "./teardown.ts";
import { readMachineStats } from "./stats.ts";
import { delay, within } from "./time.ts";

export interface MachineEnvironment {
  readonly peers: OrchestratorPeers;
  readonly context: ServiceContext;
  readonly store: MachineStore;
  readonly topology: string;
  readonly network: string;
  readonly agentTimeoutMs: number;
  /** Called before each start: the services' chains must hold the user's rules. */
  prepareStart(): Promise<void>;
  /** Removes what others keep for the machine: snapshots, pins, the box of an imported one. */
  forget(machine: Machine): Promise<void>;
  /** The machine is gone; forget it. */
  removed(machine: Machine): void;
}

type OperationKind = "start" | "save" | "halt" | "destroy" | "restart" | "stop" | "abort" | "recover" | "snapshot" | "change";
interface Operation {
  readonly kind: OperationKind;
  readonly abort: AbortController;
  readonly promise: Promise<void>;
}

const DOING: Record<OperationKind, string> = {
  start: "being started",
  save: "being suspended",
  halt: "being halted",
  destroy: "being destroyed",
  restart: "rebooting",
  stop: "powering off",
  abort: "being cleaned up after a failure",
  recover: "being looked for after a restart of the orchestrator",
  snapshot: "being copied",
  change: "being changed",
};
/** Operations that the machine begins by itself and that end soon. */
const UNASKED: ReadonlySet<OperationKind> = new Set(["stop", "abort", "recover"]);
const HALT_TIMEOUT_MS = 20_000;
const STATS_TIMEOUT_MS = 1000;
const DISK_CLOSE_POLL_MS = 100;
const DISK_CLOSE_ATTEMPTS = 100;

/**
 * One machine's life. At most one operation at a time: the same command again joins it, another one is refused with
 * "conflict"; only a forced halt and a destroy cut a start short. What the guest itself does (power off, reset) is
 * handled as an operation too.
 *
 *     CREATED ─start→ STARTING ─→ RUNNING ─halt→ HALTING ─→ HALTED ─start→ …
 *                        └──── failure ──→ ABORTED ←── failure of a service
 *     RUNNING ─save→ SAVING ─→ SAVED ─start→ STARTING ─→ RUNNING
 */
export class Machine {
  readonly name: string;
  readonly #record: MachineRecord;
  readonly #environment: MachineEnvironment;
  readonly #listeners = new Set<() => void>();
  readonly #progressListeners = new Set<(progress: StartProgress) => void>();
  #progress: StartProgress[] = [];
  #operation: Operation | undefined;
  #live: LiveMachine | undefined;
  #boardUp = false;
  #lastStats: ReadMachineStatsResponse | undefined;

  constructor(record: MachineRecord, environment: MachineEnvironment) {
    this.name = record.name;
    this.#record = record;
    this.#environment = environment;
  }

  get record(): Readonly<MachineRecord> {
    return this.#record;
  }
  /** Consoles can be attached. */
  get boardUp(): boolean {
    return this.#boardUp;
  }

  /** Its first start failed, and it is left alone: it has no disk and no part in any service. */
  get neverRan(): boolean {
    const { state, startedUnixMs, disk } = this.#record;
    return state === MachineState.ABORTED && startedUnixMs === 0 && !disk && !this.#operation;
  }

  view(): MachineView {
    return viewOf(this.#record, this.#environment.topology, this.#live?.agent?.ready ?? false);
  }

  /** Figures of the run that is on, or of the last one. */
  async stats(): Promise<ReadMachineStatsResponse> {
    if (!this.#boardUp && this.#lastStats) return this.#lastStats;
    return readMachineStats(this.#environment.peers, this.name, this.#boardUp);
  }

  /** Calls back after every change of what {@link view} answers. The answer unsubscribes. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The agent of a running guest; throws what to do when there is none. */
  agent(): GuestAgent {
    if (this.#record.state !== MachineState.RUNNING || !this.#live) {
      throw new ContractError("precondition", `exec: machine ${this.name} is ${stateName(this.#record.state)}; start it with: hv up ${this.name}`);
    }
    if (!this.#live.agent?.ready) {
      throw new ContractError("precondition", `exec: no guest agent answers in ${this.name}; use its console: hv console ${this.name}`);
    }
    return this.#live.agent;
  }

  // --- commands -------------------------------------------------------------------------------------------------

  async start(onProgress: (progress: StartProgress) => void): Promise<void> {
    await this.#settled();
    if (this.#record.state === MachineState.RUNNING && !this.#operation) return;
    if (this.#operation?.kind === "start") for (const progress of this.#progress) onProgress(progress);
    else this.#progress = [];
    this.#progressListeners.add(onProgress);
    try {
      await this.#operate("start", (signal) => this.#start(signal));
    } finally {
      this.#progressListeners.delete(onProgress);
    }
  }

  async halt(force: boolean, timeoutMs: number): Promise<void> {
    if (force) await this.#cutShort();
    await this.#settled();
    if (!this.#operation && this.#record.state !== MachineState.RUNNING) {
      // Halting what does not run is done; a halted machine keeps saying why it stopped.
      if (this.#record.state === MachineState.ABORTED) await this.#operate("halt", () => this.#release(MachineState.HALTED, "halted"));
      if (this.#record.state === MachineState.SAVED) {
        await this.#operate("halt", async () => {
          await this.#dropSaved();
          await this.#release(MachineState.HALTED, "its suspended state was thrown away");
        });
      }
      return;
    }
    await this.#operate("halt", (signal) => this.#halt(force, timeoutMs || HALT_TIMEOUT_MS, signal));
  }

  /** Suspends: the guest's state is kept, and taken out of the services. Of a suspended machine done at once. */
  async save(): Promise<bigint> {
    await this.#settled();
    if (this.#record.state !== MachineState.SAVED || this.#operation) {
      if (!this.#operation && this.#record.state !== MachineState.RUNNING) {
        throw new ContractError("precondition", `suspend: machine ${this.name} is ${stateName(this.#record.state)}; only a running one has a state to keep`);
      }
      await this.#operate("save", () => this.#suspend());
    }
    return this.view().savedBytes;
  }

  /** Within {@link hold}: the state of a running guest, and what `also` answers of the same moment. The guest goes on. */
  async copyState<T>(also: () => Promise<T>): Promise<{ saved: SavedState; also: T }> {
    const { peers, context } = this.#environment;
    return standStill(peers, this.name, () => true, async (harts) => ({ saved: await saveState(peers, this.name, harts, context.clock.now()), also: await also() }));
  }

  async destroy(): Promise<void> {
    if (this.#operation?.kind !== "destroy") await this.#cutShort();
    await this.#operate("destroy", () => this.#destroy());
  }

  /** Of a running machine at once; kept for its next starts. Unknown engine: `invalid`, nothing changes. */
  async setEngine(engine: string): Promise<void> {
    await this.#settled();
    if (this.#operation) throw this.#busy(this.#operation.kind);
    await this.#environment.peers.cpu.setEngine({ machine: this.name, engine }).catch((error: unknown) => {
      // It has no harts while it is stopped; the engine's name has been checked all the same (CPU-7).
      if (this.#record.state === MachineState.RUNNING || asContractError(error).condition !== "not-found") throw error;
    });
    this.#record.spec = { ...this.#record.spec, engine };
    this.#save();
    this.#changed();
  }

  agentIfReady(): GuestAgent | undefined {
    return this.#live?.agent?.ready ? this.#live.agent : undefined;
  }

  /**
   * Runs what needs the machine to stay as it is meanwhile, and saves its record afterwards. `running`: the guest runs on,
   * which only `mayRun` allows; else "precondition". Never joins another one.
   */
  async hold<T>(kind: "snapshot" | "change", { mayRun, maySaved = false }: { mayRun: boolean; maySaved?: boolean }, run: (record: MachineRecord, running: boolean) => Promise<T>): Promise<T> {
    await this.#settled();
    if (this.#operation) throw this.#busy(this.#operation.kind);
    const running = this.#record.state === MachineState.RUNNING;
    if (running && !mayRun) throw new ContractError("precondition", `machine ${this.name} is running; halt it first: hv halt ${this.name}`);
    if (this.#record.state === MachineState.SAVED && !maySaved) {
      throw new ContractError("precondition", `machine ${this.name} is suspended, and its guest relies on things as they are; let it go on (hv resume ${this.name}), or give its state up: hv halt ${this.name}`);
    }
    let answer!: T;
    await this.#operate(kind, async () => {
      answer = await run(this.#record, running);
      this.#save();
    });
    this.#changed();
    return answer;
  }

  /** After a restart of the orchestrator: is the guest still there? */
  recover(): Promise<void> {
    return this.#operate("recover", (signal) => this.#recover(signal));
  }

  /** Lets go without touching the guest (the orchestrator stops). */
  release(): void {
    this.#operation?.abort.abort(new ContractError("cancelled", "the orchestrator is stopping"));
    this.#live?.close();
    this.#live = undefined;
  }

  // --- operations -----------------------------------------------------------------------------------------------

  #operate(kind: OperationKind, run: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (this.#operation) {
      if (this.#operation.kind === kind) return this.#operation.promise;
      throw this.#busy(this.#operation.kind);
    }
    const abort = new AbortController();
    const promise = run(abort.signal).finally(() => {
      this.#operation = undefined;
      this.#followGuest();
    });
    this.#operation = { kind, abort, promise };
    return promise;
  }

  #busy(kind: OperationKind): ContractError {
    return new ContractError("conflict", `machine ${this.name} is ${DOING[kind]}; try again when that is over (hv status ${this.name})`);
  }

  /** Waits for what nobody asked for: a command must not be refused because a guest happens to be going down. */
  async #settled(): Promise<void> {
    while (this.#operation && UNASKED.has(this.#operation.kind)) await this.#operation.promise.catch(() => {});
  }

  /** Cancels a start, and waits out what cannot be cancelled. */
  async #cutShort(): Promise<void> {
    const operation = this.#operation;
    if (!operation || operation.kind === "halt" || operation.kind === "destroy") return;
    operation.abort.abort(new ContractError("cancelled", "cut short by another command"));
    await operation.promise.catch(() => {});
  }

  async #start(signal: AbortSignal): Promise<void> {
    const { peers, context, network, agentTimeoutMs } = this.#environment;
    // Leftovers of an aborted run, and of services that came back: a start begins from nothing.
    const resuming = this.#record.saved !== undefined;
    if (this.#record.state === MachineState.ABORTED || resuming) await this.#teardown();
    this.#set(MachineState.STARTING, "", "machine-started");
    const begun = context.clock.monotonic();
    const report = (stage: Stage, detail: string, done = false): void => {
      const progress = { stage, detail, elapsedMs: BigInt(Math.round(context.clock.monotonic() - begun)), done, machine: done ? this.view() : undefined };
      this.#progress.push(progress);
      for (const listener of this.#progressListeners) listener(progress);
    };
    let newDisk = false;
    try {
      await servicesServing(peers, context.clock, signal);
      await this.#environment.prepareStart();
      this.#live = await startMachine({
        spec: this.#record.spec,
        disk: this.#record.disk,
        saved: this.#record.saved,
        peers,
        clock: context.clock,
        network,
        agentTimeoutMs,
        signal,
        progress: report,
        diskCreated: (disk) => {
          newDisk = true;
          this.#record.disk = disk;
          this.#save();
        },
        boardReady: () => {
          this.#boardUp = true;
          this.#changed();
        },
        leavesSaved: () => {
          this.#record.saved = undefined;
          this.#save();
        },
      });
    } catch (error) {
      const failure = asContractError(error);
      await this.#teardown();
      if (this.#record.saved) {
        this.#set(MachineState.SAVED, failure.message, "machine-saved");
        throw failure;
      }
      if (newDisk) await this.#deleteDisk().catch(() => {});
      this.#set(MachineState.ABORTED, failure.message, "machine-aborted");
      throw failure;
    }
    if (resuming) await pinState(peers.images, savedOwner(this.name), undefined).catch(() => {});
    this.#record.startedUnixMs = context.clock.now();
    this.#record.exitCode = 0;
    this.#set(MachineState.RUNNING, "", "machine-running");
    this.#live.agent?.onReady(() => this.#changed());
    void this.#live.whenEnded.then(() => this.#followGuest());
    report("ready", this.#live.agent?.ready ? "the guest agent said hello" : "running", true);
  }

  /** Whatever fails, or kills us, before the machine is SAVED: its guest goes on, or is gone as in a power cut; after that its state is kept. */
  async #suspend(): Promise<void> {
    const { peers, context } = this.#environment;
    this.#set(MachineState.SAVING, "");
    try {
      await standStill(peers, this.name, (done) => !done, async (harts) => {
        const saved = await saveState(peers, this.name, harts, context.clock.now());
        await pinState(peers.images, savedOwner(this.name), saved);
        this.#record.saved = saved;
        this.#record.exitCode = 0;
        this.#set(MachineState.SAVED, "suspended", "machine-saved");
      });
    } catch (error) {
      const { condition, message } = asContractError(error);
      this.#set(MachineState.RUNNING, `it could not be suspended: ${message}`);
      throw new ContractError(condition, `suspend ${this.name}: ${message}; it runs on`, { cause: error });
    }
    this.#live?.close();
    this.#live = undefined;
    await this.#teardown();
  }

  async #dropSaved(): Promise<void> {
    this.#record.saved = undefined;
    this.#record.state = MachineState.HALTED;
    this.#save();
    await pinState(this.#environment.peers.images, savedOwner(this.name), undefined).catch(() => {});
  }

  async #halt(force: boolean, timeoutMs: number, signal: AbortSignal): Promise<void> {
    const live = this.#live;
    this.#set(MachineState.HALTING, "");
    let reason = "halted by force";
    let exitCode = 0;
    if (live?.agent?.ready && !force && !live.ended) {
      live.agent.halt();
      const end = await Promise.race([live.whenEnded, delay(this.#environment.context.clock, timeoutMs, signal)]);
      reason = end ? "halted" : `halted by force: the guest had not powered off after ${timeoutMs} ms`;
      exitCode = end?.exitCode ?? 0;
    } else if (!force) {
      reason = "halted by force: no guest agent to ask";
    }
    await this.#release(MachineState.HALTED, reason, exitCode);
  }

  async #destroy(): Promise<void> {
    this.#live?.close();
    this.#live = undefined;
    const left = await this.#teardown();
    await this.#deleteDisk().catch((error: unknown) => left.push(`image-registry: disk: ${asContractError(error).message}`));
    await this.#environment.forget(this).catch((error: unknown) => left.push(`image-registry: ${asContractError(error).message}`));
    if (left.length > 0) {
      const reason = `destroy ${this.name}: some parts could not be removed (${left.join("; ")}); try again when those services answer`;
      this.#set(MachineState.ABORTED, reason, "machine-aborted");
      throw new ContractError("unavailable", reason);
    }
    this.#environment.store.remove(this.name);
    this.#record.state = MachineState.DESTROYED;
    this.#environment.removed(this);
    publishFact(this.#environment.context.events, "machine-destroyed", this.view());
    this.#changed();
  }

  /** The guest ended by itself and no command is dealing with it: stop, reboot or abort. */
  #followGuest(): void {
    const end = this.#live?.ended;
    if (!end || this.#operation) return;
    const operation =
      end.kind === "reset"
        ? this.#operate("restart", (signal) => this.#restart(signal))
        : end.kind === "lost"
          ? this.#operate("abort", () => this.#release(MachineState.ABORTED, end.reason))
          : this.#operate("stop", () => this.#stopped(end));
    operation.catch((error: unknown) => this.#environment.context.log.warn({ machine: this.name, error }, "after the guest ended"));
  }

  async #stopped(end: GuestEnd): Promise<void> {
    await this.#release(MachineState.HALTED, end.reason, end.exitCode);
    if (this.#record.spec.ephemeral) await this.#destroy();
  }

  async #restart(signal: AbortSignal): Promise<void> {
    this.#live?.close();
    this.#live = undefined;
    await this.#teardown();
    await this.#start(signal);
  }

  async #recover(signal: AbortSignal): Promise<void> {
    const was = this.#record.state;
    if (this.#record.saved) {
      await this.#teardown();
      if (was !== MachineState.SAVED) this.#set(MachineState.SAVED, `the orchestrator restarted while the machine was ${stateName(was)}`, "machine-saved");
      return;
    }
    // Whoever waited for an ephemeral machine has lost its stream: nobody wants it any more.
    if ((was === MachineState.RUNNING || was === MachineState.SAVING) && !this.#record.spec.ephemeral && (await this.#adopt(signal))) return;
    await this.#release(MachineState.ABORTED, `the orchestrator restarted while the machine was ${stateName(was)}`);
    if (this.#record.spec.ephemeral) await this.#destroy();
  }

  /** Takes up a guest that an earlier orchestrator started; false when it does not run any more. */
  async #adopt(signal: AbortSignal): Promise<boolean> {
    const { peers, context } = this.#environment;
    if (!(await this.#stillRuns(signal))) return false;
    try {
      await letGoOn(peers, this.name); // it stood still when its state was being copied
      const { windows } = await peers.devices.describeBoard({ machine: this.name });
      this.#live = new LiveMachine({
        name: this.name,
        peers,
        clock: context.clock,
        agentConsole: windows.some((window) => window.device === AGENT_CONSOLE) ? AGENT_CONSOLE : "",
        tohost: await tohostOf(peers.images, this.#record.spec.kernelDigest),
        adopted: true,
      });
    } catch (error) {
      context.log.warn({ machine: this.name, error }, "a running machine could not be adopted");
      return false;
    }
    this.#boardUp = true;
    if (this.#record.state !== MachineState.RUNNING) this.#set(MachineState.RUNNING, "");
    this.#live.agent?.onReady(() => this.#changed());
    void this.#live.whenEnded.then(() => this.#followGuest());
    context.log.info({ machine: this.name }, "running machine adopted again");
    this.#changed();
    return true;
  }

  /** Board and harts both answer that they run. Peers may still be starting: "unavailable" is asked again. */
  async #stillRuns(signal: AbortSignal): Promise<boolean> {
    const { peers, context } = this.#environment;
    const deadline = context.clock.monotonic() + 10_000;
    for (;;) {
      const answers = await Promise.all([
        firstState(() => peers.devices.watchBoard({ machine: this.name })),
        firstState(() => peers.cpu.watchHarts({ machine: this.name })),
      ]);
      if (answers[0] === "on" && (answers[1] === "running" || answers[1] === "paused")) return true;
      if (!answers.includes("unavailable") || signal.aborted || context.clock.monotonic() > deadline) return false;
      await delay(context.clock, 250, signal);
    }
  }

  // --- shared steps ---------------------------------------------------------------------------------------------

  async #release(state: MachineState, reason: string, exitCode = 0): Promise<void> {
    this.#live?.close();
    this.#live = undefined;
    await this.#teardown();
    this.#record.exitCode = exitCode;
    this.#set(state, reason, state === MachineState.ABORTED ? "machine-aborted" : "machine-halted");
  }

  async #teardown(): Promise<string[]> {
    if (this.#boardUp) await this.#keepStats();
    this.#boardUp = false;
    const left = await teardown(this.#environment.peers, this.#environment.context.clock, this.name);
    if (left.length > 0) this.#environment.context.log.warn({ machine: this.name, left }, "teardown is incomplete");
    return left;
  }

  /** The services forget a machine that is torn down; its last figures stay readable here. */
  async #keepStats(): Promise<void> {
    const { clock } = this.#environment.context;
    this.#lastStats = await within(clock, STATS_TIMEOUT_MS, this.stats(), "reading the last figures").catch(() => this.#lastStats);
  }

  async #deleteDisk(): Promise<void> {
    const disk = this.#record.disk;
    if (!disk) return;
    const { peers, context } = this.#environment;
    for (let attempt = 1; ; attempt++) {
      const failure = await peers.images.deleteDisk({ id: disk.id }).then(() => undefined, asContractError);
      if (!failure || failure.condition === "not-found") break;
      // The board's stream was closed just now: the image-registry hears of it on another connection than this one.
      if (failure.condition !== "conflict" || attempt === DISK_CLOSE_ATTEMPTS) throw failure;
      await delay(context.clock, DISK_CLOSE_POLL_MS);
    }
    this.#record.disk = undefined;
    this.#save();
  }

  #set(state: MachineState, reason: string, fact?: MachineFact): void {
    this.#record.state = state;
    this.#record.reason = reason;
    this.#save();
    if (fact) publishFact(this.#environment.context.events, fact, this.view());
    this.#environment.context.log.info({ machine: this.name, state: stateName(state), reason }, "machine state");
    this.#changed();
  }

  #save(): void {
    this.#environment.store.save(this.#record);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** A machine as the API shows it. */
export function viewOf(record: Readonly<MachineRecord>, topology: string, agentReady: boolean): MachineView {
  const { spec, state, reason, exitCode, createdUnixMs, startedUnixMs } = record;
  return {
    spec: { ...spec, topology },
    state,
    reason,
    exitCode,
    createdUnixMs: BigInt(createdUnixMs),
    startedUnixMs: BigInt(startedUnixMs),
    agentReady,
    savedBytes: record.saved ? BigInt(bytesOf(record.saved)) : 0n,
  };
}

/** The state in a watch's first message, or the condition of its failure. */
function firstState(
  open: () => { onMessage(listener: (event: { state: string }) => void): void; onClose(listener: (error?: Error) => void): void; close(): void },
): Promise<string> {
  return new Promise((resolve) => {
    try {
      const channel = open();
      channel.onClose((error) => resolve(error ? asContractError(error).condition : "closed"));
      channel.onMessage((event) => {
        resolve(event.state);
        channel.close();
      });
    } catch (error) {
      resolve(asContractError(error).condition);
    }
  });
}
