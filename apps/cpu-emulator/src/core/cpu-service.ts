import { ContractError, type Implementation } from "@polyvisor/contracts";
import { CPU, Firmware, type CreateHartsRequest } from "@polyvisor/contracts/cpu";
import type { ServiceContext } from "@polyvisor/service-kit";
import { serveDebug } from "./debug/debug-stream.ts";
import { DEFAULT_ENGINE, ENGINES, type EngineName } from "./hart-loop.ts";
import type { HartHost } from "./host.ts";
import { DEFAULT_FEATURES, parseCpuFeatures } from "./cpu-features.ts";
import { isaString } from "./isa-string.ts";
import { Machine, type MachinePeers } from "./machine.ts";

export interface CpuServiceOptions {
  readonly maxHarts: number;
  readonly maxMachines: number;
}

/** cpu.proto over machines. Life-cycle rules are in CONTRACT.md (CPU-1 ...). */
export class CpuService {
  readonly #machines = new Map<string, Machine>();
  readonly #creating = new Set<string>();
  #closed = false;
  readonly #options: CpuServiceOptions;
  readonly #peers: MachinePeers;
  readonly #host: HartHost;
  readonly #context: ServiceContext;

  constructor(options: CpuServiceOptions, peers: MachinePeers, host: HartHost, context: ServiceContext) {
    this.#options = options;
    this.#peers = peers;
    this.#host = host;
    this.#context = context;
    host.keepSpare?.();
  }

  readonly implementation: Implementation<typeof CPU.definition> = {
    createHarts: async (request) => {
      const id = request.machine;
      this.#validate(request);
      const features = parseCpuFeatures(request.cpu);
      if (this.#machines.has(id) || this.#creating.has(id)) {
        throw new ContractError("already-exists", `createHarts: ${id} has harts already; destroy them first`);
      }
      if (this.#machines.size + this.#creating.size >= this.#options.maxMachines) {
        throw new ContractError("exhausted", `createHarts: ${this.#options.maxMachines} machines have harts here already`);
      }
      this.#creating.add(id);
      try {
        const machine = await Machine.create(
          {
            machine: id, harts: request.harts, engine: (request.engine || DEFAULT_ENGINE) as EngineName,
            firmware: request.firmware === Firmware.NONE ? "none" : "builtin",
            features, entry: request.entry, deviceTree: request.deviceTree, deterministic: request.deterministic, code: request.code, ramBase: request.ramBase, ramBytes: request.ramBytes,
          },
          this.#peers,
          this.#host,
          (changed) => this.#publish(changed),
        );
        if (this.#closed) {
          await machine.destroy();
          throw new ContractError("unavailable", "createHarts: the cpu-emulator is shutting down");
        }
        this.#machines.set(id, machine);
      } finally {
        this.#creating.delete(id);
      }
      return { isa: isaString(features), mmu: `riscv,${features.paging}` };
    },
    runHarts: async ({ machine }) => {
      await this.#machine("runHarts", machine).run();
      return {};
    },
    pauseHarts: async ({ machine }) => {
      await this.#machine("pauseHarts", machine).pause();
      return {};
    },
    stepHart: async ({ machine, hart, instructions }) => this.#machine("stepHart", machine).step(hart, instructions),
    destroyHarts: async ({ machine: id }) => {
      const machine = this.#machine("destroyHarts", id);
      this.#machines.delete(id);
      await machine.destroy();
      if (this.#machines.size === 0 && !this.#closed) this.#host.keepSpare?.(); // not beside machines: it holds 15 MB
      return {};
    },
    readHart: ({ machine, hart }) => ({ state: this.#machine("readHart", machine).read(hart) }),
    writeHart: async ({ machine, state }) => {
      if (!state) throw new ContractError("invalid", "writeHart: no state");
      await this.#machine("writeHart", machine).write(state);
      return {};
    },
    walkAddress: async ({ machine, hart, address }) => ({ walk: await this.#machine("walkAddress", machine).walk(hart, address) }),
    readCode: async ({ machine, hart, address, count }) => ({ lines: await this.#machine("readCode", machine).code(hart, address, count) }),
    readProfile: ({ machine, spots }) => this.#machine("readProfile", machine).profile(spots),
    debug: (channel) => serveDebug(channel, (machine) => this.#machine("debug", machine)),
    saveHarts: async ({ machine }) => ({ state: await this.#machine("saveHarts", machine).save() }),
    restoreHarts: async ({ machine, state }) => {
      await this.#machine("restoreHarts", machine).restore(state);
      return {};
    },
    saveTranslation: async ({ machine }) => this.#machine("saveTranslation", machine).saveTranslation(),
    setEngine: async ({ machine, engine }) => {
      const name = engineNamed("setEngine", engine); // first: also asked about machines that are stopped
      await this.#machine("setEngine", machine).setEngine(name);
      return {};
    },
    readStats: async ({ machine: id }) => {
      const machine = this.#machine("readStats", id);
      return { harts: await machine.stats(), engine: machine.engine };
    },
    interrupts: (channel) => {
      let last = 0n;
      channel.onMessage((signal) => {
        if (channel.closed) return;
        const machine = this.#machines.get(signal.machine);
        if (!machine) return channel.close(new ContractError("not-found", `interrupts: ${signal.machine} has no harts`));
        if (signal.sequence <= last) {
          return channel.close(new ContractError("invalid", `interrupts: sequence ${signal.sequence} after ${last}; it must increase`));
        }
        last = signal.sequence;
        if (!machine.signal(signal)) {
          return channel.close(new ContractError("invalid", `interrupts: ${signal.machine} has no hart ${signal.hart} or no line ${signal.line}`));
        }
        if (signal.acknowledge) channel.send({ machine: signal.machine, sequence: signal.sequence });
      });
    },
    watchHarts: ({ machine }, out) => {
      const found = this.#machines.get(machine);
      if (found) found.watch(out);
      else out.close(new ContractError("not-found", `watchHarts: ${machine} has no harts`));
    },
  };

  /** Destroys the harts of all machines. */
  async close(): Promise<void> {
    this.#closed = true;
    const machines = [...this.#machines.values()];
    this.#machines.clear();
    await Promise.all([...machines.map((machine) => machine.destroy()), this.#host.dropSpare?.()]);
  }
  describe(): Record<string, string> {
    return {
      machines: [...this.#machines.values()].map(({ spec, state, engine }) => `${spec.machine} (${state}, ${engine})`).join(", ") || "none",
      isa: isaString(DEFAULT_FEATURES),
      leases: [...(this.#peers.sharedMemory ? ["shared"] : []), ...(this.#peers.mapMemory ? ["mapped"] : []), "coherent"].join(", "),
    };
  }

  #machine(what: string, id: string): Machine {
    const machine = this.#machines.get(id);
    if (!machine) throw new ContractError("not-found", `${what}: ${id || "(no name)"} has no harts here; create them first`);
    return machine;
  }
  #validate(request: CreateHartsRequest): void {
    const bad = (what: string): never => {
      throw new ContractError("invalid", `createHarts: ${what}`);
    };
    if (!request.machine) bad("machine is empty");
    if (request.harts < 1 || request.harts > this.#options.maxHarts) bad(`${request.harts} harts; 1 to ${this.#options.maxHarts}`);
    if (request.engine) engineNamed("createHarts", request.engine);
    if (request.firmware !== Firmware.BUILTIN && request.firmware !== Firmware.NONE) bad("firmware is neither BUILTIN nor NONE");
    if (request.deterministic && request.harts !== 1) bad(`deterministic time with ${request.harts} harts; it needs a machine of one, whose instructions are counted`);
    if (request.ramBytes < 4096n || request.ramBytes & 0xfffn || request.ramBase & 0xfffn) {
      bad(`RAM of ${request.ramBytes} bytes at 0x${request.ramBase.toString(16)}; both must be multiples of 4096`);
    }
    if (request.ramBytes > 1n << 32n || request.ramBase + request.ramBytes > 1n << 52n) bad(`RAM of ${request.ramBytes} bytes is more than this machine can reach`);
    if (request.entry & 1n) bad(`entry 0x${request.entry.toString(16)} is odd`);
  }
  #publish(machine: Machine): void {
    const { spec, state, reason, engine } = machine;
    this.#context.events.publish({
      machine: spec.machine, service: CPU.service, fact: `harts-${state}`,
      data: { harts: spec.harts, engine, ...(reason ? { reason } : {}) },
    });
    if (state === "failed") this.#context.log.error({ machine: spec.machine, reason }, "harts failed");
    else this.#context.log.info({ machine: spec.machine, harts: spec.harts, engine }, `harts ${state}`);
  }
}

function engineNamed(what: string, name: string): EngineName {
  if ((ENGINES as readonly string[]).includes(name)) return name as EngineName;
  throw new ContractError("invalid", `${what}: no engine "${name}"; one of ${ENGINES.join(", ")}`);
}
