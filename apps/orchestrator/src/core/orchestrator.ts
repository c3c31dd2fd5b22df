import { asContractError, ContractError, type Implementation, type Sink } from "@polyvisor/contracts";
import { MachineSpec, MachineState, type ORCHESTRATOR } from "@polyvisor/contracts/orchestrator";
import type { ServiceContext } from "@polyvisor/service-kit";
import { serveAttachConsole } from "./attach-console.ts";
import { readCpu, running } from "./read-cpu.ts";
import { serveDebug } from "./debug-machine.ts";
import { serveExec } from "./exec.ts";
import { publishFact } from "./facts.ts";
import { listServices } from "./list-services.ts";
import { Machine, type MachineEnvironment } from "./machine.ts";
import type { MachineDisk, MachineRecord, MachineStore } from "./machine-store.ts";
import { changeDisk } from "./change-disk.ts";
import { exportMachine, importMachine, removeImportedBox } from "./machine-archive.ts";
import { pinFiles, unpinFiles } from "./pinned-files.ts";
import { pinState, savedOwner, type SavedState } from "./saved-machine.ts";
import { snapshotView, Snapshots } from "./snapshots.ts";
import { checkName, checkSpec, completeSpec } from "./machine-spec.ts";
import type { OrchestratorPeers } from "./peers.ts";
import { Rules } from "./rules.ts";

export interface OrchestratorSettings {
  readonly topology: string;
  readonly network: string;
  readonly agentTimeoutMs: number;
}

/** The cpu-emulator translates some thousand regions meanwhile. */
const TRANSLATION_MS = 120_000;

/** The service's core: finds the machine that a call is about and hands the call to it. */
export class Orchestrator {
  readonly implementation: Implementation<(typeof ORCHESTRATOR)["definition"]>;
  readonly #machines = new Map<string, Machine>();
  readonly #peers: OrchestratorPeers;
  readonly #store: MachineStore;
  readonly #context: ServiceContext;
  readonly #settings: OrchestratorSettings;
  readonly #rules: Rules;
  readonly #snapshots: Snapshots;
  readonly #environment: MachineEnvironment;

  constructor(peers: OrchestratorPeers, store: MachineStore, context: ServiceContext, settings: OrchestratorSettings) {
    this.#peers = peers;
    this.#store = store;
    this.#context = context;
    this.#settings = settings;
    this.#rules = new Rules(peers);
    this.#snapshots = new Snapshots(peers, store, context.clock);
    this.#environment = {
      peers,
      context,
      store,
      ...settings,
      prepareStart: () => this.#rules.restore(),
      forget: (machine) => this.#forget(machine),
      removed: (machine) => this.#machines.delete(machine.name),
    };
    this.implementation = this.#implement();
  }

  /** Loads the machines of the last run and looks for those that ran. Answers at once; commands wait for their machine. */
  recover(): void {
    const unsettled: MachineState[] = [MachineState.STARTING, MachineState.RUNNING, MachineState.HALTING, MachineState.SAVING, MachineState.SAVED];
    for (const record of this.#store.list()) {
      const machine = new Machine(record, this.#environment);
      this.#machines.set(record.name, machine);
      if (!unsettled.includes(record.state) && !record.spec.ephemeral) continue;
      machine.recover().catch((error: unknown) => this.#context.log.warn({ machine: record.name, error }, "recovery failed"));
    }
  }

  /** Lets go of everything; running guests keep running. */
  close(): void {
    for (const machine of this.#machines.values()) machine.release();
    this.#store.close();
  }

  #find(name: string): Machine {
    const machine = this.#machines.get(name);
    if (!machine) throw new ContractError("not-found", `no machine "${name}"; hv status lists the machines, hv up ${name || "NAME"} makes one`);
    return machine;
  }

  #implement(): Orchestrator["implementation"] {
    const find = (name: string): Machine => this.#find(name);
    return {
      createMachine: async ({ spec }) => ({ machine: (await this.#create(spec)).view() }),
      startMachine: ({ name }, out) => {
        Promise.try(async () => {
          const machine = find(name);
          let done = false;
          await machine.start((progress) => {
            done ||= progress.done;
            out.send(progress);
          });
          if (!done) out.send({ stage: "ready", detail: "already running", elapsedMs: 0n, done: true, machine: machine.view() });
          out.close();
        }).catch((error: unknown) => out.close(asContractError(error)));
      },
      haltMachine: async ({ name, force, timeoutMs }) => {
        const machine = find(name);
        await machine.halt(force, timeoutMs);
        return { machine: machine.view() };
      },
      saveMachine: async ({ name }) => {
        const machine = find(name);
        const savedBytes = await machine.save();
        return { machine: machine.view(), savedBytes };
      },
      destroyMachine: async ({ name }) => {
        await find(name).destroy();
        return {};
      },
      getMachine: async ({ name }) => ({ machine: find(name).view() }),
      listMachines: async () => ({ machines: [...this.#machines.values()].map((machine) => machine.view()) }),
      watchMachine: ({ name }, out) => this.#watch(name, out),
      exec: (channel) => serveExec(channel, find, this.#context.clock),
      attachConsole: (channel) => serveAttachConsole(channel, find, this.#peers),
      readCpu: async ({ name }) => readCpu(find(name), this.#peers),
      walkCpuAddress: ({ name, ...rest }) => this.#peers.cpu.walkAddress({ machine: running(find(name)), ...rest }),
      readCpuCode: ({ name, ...rest }) => this.#peers.cpu.readCode({ machine: running(find(name)), ...rest }),
      readCpuProfile: async ({ name, ...rest }) => ({ profile: await this.#peers.cpu.readProfile({ machine: running(find(name)), ...rest }) }),
      saveMachineTranslation: async ({ name }) => ({ translation: await this.#peers.cpu.saveTranslation({ machine: running(find(name)) }, { timeoutMs: TRANSLATION_MS }) }),
      debug: (channel) => serveDebug(channel, find, this.#peers),
      setMachineEngine: async ({ name, engine }) => {
        const machine = find(name);
        await machine.setEngine(engine);
        return { machine: machine.view() };
      },
      cloneMachine: async ({ name, newName }) => {
        this.#checkFree(newName);
        const clone = await this.#snapshots.clone(find(name), newName, this.#settings.network, ({ spec, disk, saved }) => this.#adopt(spec, disk, saved));
        return { machine: clone.view() };
      },
      saveSnapshot: async ({ name, ...asked }) => ({ snapshot: snapshotView(await this.#snapshots.save(find(name), asked)) }),
      restoreSnapshot: async ({ name, snapshot }) => {
        const machine = find(name);
        await this.#snapshots.restore(machine, snapshot);
        return { machine: machine.view() };
      },
      listSnapshots: async ({ name }) => ({ snapshots: this.#snapshots.list(name === "" ? "" : find(name).name).map(snapshotView) }),
      deleteSnapshot: async ({ name, snapshot }) => {
        await this.#snapshots.delete(find(name).name, snapshot);
        return {};
      },
      exportMachine: async ({ name, snapshot }) => this.#snapshots.content(find(name), snapshot, (content) => exportMachine(this.#peers, this.#settings.network, content)),
      importMachine: async ({ digest, name }) => {
        if (name) this.#checkFree(name);
        const { spec, disk, saved } = await importMachine(this.#peers.images, digest, name, (wanted) => this.#checkFree(wanted));
        return { machine: (await this.#adopt(spec, disk, saved)).view() };
      },
      resizeMachineDisk: async ({ name, bytes, mayShrink }) => {
        await changeDisk(this.#peers, find(name), { kind: "resize", bytes, mayShrink });
        return {};
      },
      replaceMachineDisk: async ({ name, digest, mediaType, bytes }) => {
        const machine = find(name);
        await changeDisk(this.#peers, machine, { kind: "replace", digest, mediaType, bytes });
        return { machine: machine.view() };
      },
      readMachineStats: async ({ name }) => find(name).stats(),
      listServices: async () => ({
        services: await listServices(this.#peers, this.#context.clock),
        topology: this.#settings.topology,
      }),
      addRule: async ({ rule }) => ({ rule: await this.#rules.add(rule) }),
      removeRule: async ({ id }) => ({ removed: await this.#rules.remove(id) }),
      listRules: async () => ({ rules: await this.#rules.list() }),
      trace: (request, out) => this.#rules.trace(request, out),
    };
  }

  async #create(asked: MachineSpec | undefined): Promise<Machine> {
    const requested = checkSpec(asked);
    const existing = this.#machines.get(requested.name);
    if (existing) {
      const same = JSON.stringify(MachineSpec.toJSON(existing.record.requested)) === JSON.stringify(MachineSpec.toJSON(requested));
      if (same) return existing;
      // A first start that failed leaves nothing but its settings: others may take their place.
      if (existing.neverRan) {
        await existing.destroy();
        return this.#create(asked);
      }
      throw new ContractError("already-exists", `machine ${requested.name} exists with other settings; use it as it is (hv up ${requested.name}), or remove it first: hv destroy ${requested.name}`);
    }
    const spec = await completeSpec(requested, this.#peers.images);
    await pinFiles(this.#peers.images, spec);
    if (this.#machines.has(requested.name)) return this.#create(asked); // Another client was faster.
    const record: MachineRecord = {
      name: spec.name,
      requested,
      spec,
      state: MachineState.CREATED,
      reason: "",
      exitCode: 0,
      createdUnixMs: this.#context.clock.now(),
      startedUnixMs: 0,
      disk: undefined,
      saved: undefined,
    };
    this.#store.save(record);
    const machine = new Machine(record, this.#environment);
    this.#machines.set(spec.name, machine);
    publishFact(this.#context.events, "machine-created", machine.view());
    return machine;
  }

  #checkFree(name: string): void {
    checkName(name);
    if (this.#machines.has(name)) throw new ContractError("already-exists", `there is a machine ${name} already; choose another name, or: hv destroy ${name}`);
  }

  /** A machine that comes into being halted, or suspended, with a disk that was made for it. */
  async #adopt(spec: MachineSpec, disk: MachineDisk | undefined, saved?: SavedState): Promise<Machine> {
    try {
      this.#checkFree(spec.name); // another client may have been faster
      const complete = await completeSpec(spec, this.#peers.images);
      const { clock } = this.#context;
      const record: MachineRecord = {
        name: spec.name, requested: spec, spec: complete, state: saved ? MachineState.SAVED : MachineState.HALTED, reason: "", exitCode: 0, createdUnixMs: clock.now(), startedUnixMs: 0, disk, saved,
      };
      if (saved) await pinState(this.#peers.images, savedOwner(spec.name), saved);
      await pinFiles(this.#peers.images, complete);
      this.#store.save(record);
      const machine = new Machine(record, this.#environment);
      this.#machines.set(spec.name, machine);
      publishFact(this.#context.events, "machine-created", machine.view());
      return machine;
    } catch (error) {
      if (disk) await this.#peers.images.deleteDisk({ id: disk.id }).catch(() => {});
      if (saved && !this.#machines.has(spec.name)) await pinState(this.#peers.images, savedOwner(spec.name), undefined).catch(() => {});
      await removeImportedBox(this.#peers.images, spec).catch(() => {});
      throw error;
    }
  }

  async #forget({ name, record }: Machine): Promise<void> {
    for (const snapshot of this.#snapshots.list(name)) await this.#snapshots.delete(name, snapshot.name);
    await removeImportedBox(this.#peers.images, record.spec);
    await pinState(this.#peers.images, savedOwner(name), undefined);
    await unpinFiles(this.#peers.images, name);
  }

  #watch(name: string, out: Sink<{ machine: ReturnType<Machine["view"]> }>): void {
    try {
      const machine = this.#find(name);
      const report = (): void => {
        out.send({ machine: machine.view() });
        if (machine.record.state === MachineState.DESTROYED) out.close();
      };
      out.onClose(machine.onChange(report));
      report();
    } catch (error) {
      out.close(asContractError(error));
    }
  }
}
