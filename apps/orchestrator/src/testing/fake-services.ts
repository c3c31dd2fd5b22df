import { createHash } from "node:crypto";
import { ContractError, mediated, type Channel, type Sink } from "@polyvisor/contracts";
import { CPU, type CreateHartsRequest, type HartEvent } from "@polyvisor/contracts/cpu";
import { type BoardEvent, type ConsoleInput, type ConsoleOutput, type CreateBoardRequest, DEVICE } from "@polyvisor/contracts/device";
import { Box, Disk, IMAGE } from "@polyvisor/contracts/image";
import { KIT } from "@polyvisor/contracts/kit";
import { MEDIATION, type Rule } from "@polyvisor/contracts/mediation";
import { MEMORY, type PopulateRequest } from "@polyvisor/contracts/memory";
import { NETWORK, Port } from "@polyvisor/contracts/network";
import type { ServiceSide } from "@polyvisor/service-kit";
import type { OrchestratorPeers } from "../core/peers.ts";

/** What the fake services hold of one machine, and the levers that a test pulls. */
export class FakeMachine {
  board: CreateBoardRequest | undefined;
  harts: CreateHartsRequest | undefined;
  running = false;
  /** Harts or board stand still. */
  paused = new Set<"harts" | "board">();
  /** What RestoreSpace, RestoreHarts and RestoreBoard were given, in this order. */
  restored: string[] = [];
  populated: PopulateRequest[] = [];
  memory = new Map<bigint, Uint8Array>();
  boardWatches: Sink<BoardEvent>[] = [];
  hartWatches: Sink<HartEvent>[] = [];
  consoles: { console: string; channel: Channel<ConsoleOutput, ConsoleInput> }[] = [];

  boardEvent(state: string, exitCode = 0, reason = ""): void {
    for (const watch of this.boardWatches) watch.send({ machine: this.board!.machine, state, exitCode, reason });
  }
  print(console: string, text: string): void {
    const data = new TextEncoder().encode(text);
    for (const each of this.consoles) if (each.console === console) each.channel.send({ machine: this.board!.machine, console, data });
  }
}

export interface FakeOptions {
  /** Method names that fail with this error. */
  failures?: Map<string, ContractError>;
  /** False: the guest never says hello. */
  agent?: boolean;
}

/** A Linux Image header (Documentation/arch/riscv/boot-image-header.rst) and nothing behind it. */
export function linuxImage(imageBytes: bigint): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(8, 0x20_0000n, true);
  view.setBigUint64(16, imageBytes, true);
  view.setUint32(32, 2, true);
  bytes.set(new TextEncoder().encode("RISCV"), 48);
  bytes.set(new TextEncoder().encode("RSC\x05"), 56);
  return bytes;
}

/**
 * Five services that keep books instead of running guests, behind the real local adapter. The guest's agent answers
 * `EXEC` with the command line itself and exit status 3.
 */
export class FakeServices {
  readonly machines = new Map<string, FakeMachine>();
  readonly blobs = new Map<string, Uint8Array>();
  readonly boxes = new Map<string, Box>();
  readonly disks = new Map<string, { baseDigest: string; bytes: bigint }>();
  readonly ports = new Map<string, Port>();
  readonly spaces = new Set<string>();
  readonly pins = new Map<string, readonly string[]>();
  readonly calls: string[] = [];
  /** Services that do not answer when they are asked who they are. */
  readonly silent = new Set<string>();
  readonly rules = new Map<string, Map<string, Rule>>();
  readonly options: FakeOptions;
  readonly peers: OrchestratorPeers;

  constructor(options: FakeOptions = {}) {
    this.options = options;
    this.peers = {
      cpu: this.#watched(mediated(CPU, this.#cpu())),
      memory: this.#watched(mediated(MEMORY, this.#memory())),
      devices: this.#watched(mediated(DEVICE, this.#devices())),
      network: this.#watched(mediated(NETWORK, this.#network())),
      images: this.#watched(mediated(IMAGE, this.#images())),
      services: new Map(["cpu-emulator", "device-bus", "orchestrator"].map((service) => [service, this.#side(service)])),
    };
    const kernel = this.putBlob(linuxImage(0x10_0000n));
    const initrd = this.putBlob(new Uint8Array(5000));
    this.boxes.set(
      "tiny",
      Box.fromPartial({
        name: "tiny",
        kernel: { digest: kernel, size: 4096n },
        initrd: { digest: initrd, size: 5000n },
        config: { bootArguments: "console=ttyS0 quiet", memoryBytes: 64n << 20n, harts: 2, diskBytes: 1n << 20n, agentConsole: "agent" },
      }),
    );
  }

  putBlob(bytes: Uint8Array): string {
    const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    this.blobs.set(digest, bytes);
    return digest;
  }

  machine(name: string): FakeMachine {
    let machine = this.machines.get(name);
    if (!machine) this.machines.set(name, (machine = new FakeMachine()));
    return machine;
  }

  /** Nothing of a machine is left anywhere but its disk. */
  holds(name: string): string[] {
    const machine = this.machine(name);
    return [machine.board && "board", machine.harts && "harts", this.spaces.has(name) && "space", this.ports.has(`${name}/net0`) && "port"].filter(
      (part): part is string => typeof part === "string",
    );
  }

  #watched<P extends object>(port: P): P {
    return new Proxy(port, {
      get: (target, name, receiver) => {
        const call = Reflect.get(target, name, receiver) as unknown;
        if (typeof call !== "function" || typeof name !== "string") return call;
        return (...args: unknown[]) => {
          this.calls.push(name);
          const failure = this.options.failures?.get(name);
          if (failure) return Promise.reject(failure);
          return (call as Function)(...args);
        };
      },
    });
  }

  #cpu(): Parameters<typeof mediated<(typeof CPU)["definition"]>>[1] {
    return {
      createHarts: (request) => {
        this.machine(request.machine).harts = request;
        return { isa: "rv64imafdc", mmu: "riscv,sv48" };
      },
      pauseHarts: ({ machine }) => (this.machine(machine).paused.add("harts"), {}),
      saveHarts: () => ({ state: Uint8Array.of(1, 2) }),
      restoreHarts: ({ machine, state }) => (this.machine(machine).restored.push(`harts ${state}`), {}),
      runHarts: ({ machine }) => {
        this.machine(machine).running = true;
        this.machine(machine).paused.delete("harts");
        if (this.options.agent !== false) queueMicrotask(() => this.machine(machine).print("agent", "login noise\nHELLO 1\r\n"));
        return {};
      },
      setEngine: ({ machine, engine }) => {
        if (!["dynamic", "interpreter", "reference"].includes(engine)) throw new ContractError("invalid", `no engine ${engine}`);
        if (!this.machine(machine).harts) throw new ContractError("not-found", "no harts");
        return {};
      },
      debug: (channel) => {
        channel.onMessage(({ machine, packet }) => channel.send({ machine, packet: Uint8Array.of(...packet, 33) })); // an echo
      },
      destroyHarts: ({ machine }) => {
        const fake = this.machine(machine);
        if (!fake.harts) throw new ContractError("not-found", "no harts");
        fake.harts = undefined;
        fake.running = false;
        for (const watch of fake.hartWatches.splice(0)) watch.close();
        return {};
      },
      readStats: () => ({
        harts: [0, 1].map((hart) => ({
          hart,
          instructions: 100n,
          exits: new Map([["mmio-read", 2n]]),
          traps: new Map([["ecall", 1n]]),
          events: new Map(),
          pagesAcquired: 0n,
          busyUs: 5n,
        })),
        engine: "dynamic",
      }),
      watchHarts: ({ machine }, out) => {
        const fake = this.machine(machine);
        if (!fake.harts) return out.close(new ContractError("not-found", "no harts"));
        fake.hartWatches.push(out);
        out.send({ machine, state: fake.paused.has("harts") ? "paused" : fake.running ? "running" : "created", reason: "" });
      },
    };
  }

  #memory(): Parameters<typeof mediated<(typeof MEMORY)["definition"]>>[1] {
    return {
      createSpace: ({ machine }) => (this.spaces.add(machine), {}),
      destroySpace: ({ machine }) => {
        if (!this.spaces.delete(machine)) throw new ContractError("not-found", "no space");
        return {};
      },
      snapshotSpace: () => ({
        digest: "sha256:index",
        parts: ["chunks", "index"].map((digest) => ({ mediaType: digest, digest: `sha256:${digest}`, size: 7n })),
        dataBytes: 4096n,
      }),
      restoreSpace: ({ machine, digest }) => (this.machine(machine).restored.push(`memory ${digest}`), {}),
      populate: (request) => (this.machine(request.machine).populated.push(request), { bytes: 0n }),
      readMemory: ({ machine, address, length }) => ({ data: this.machine(machine).memory.get(address) ?? new Uint8Array(length) }),
      readSpaceStats: () => ({
        ramBytes: 64n << 20n,
        touchedPages: 7n,
        grantedDataPages: 0n,
        grantedZeroPages: 0n,
        recalledPages: 0n,
        writtenBackPages: 0n,
        dmaReads: 0n,
        dmaWrites: 0n,
        dmaBytes: 0n,
        dmaDenied: 0n,
        forwardedAccesses: 0n,
        leaseKind: "shared",
      }),
    };
  }

  #devices(): Parameters<typeof mediated<(typeof DEVICE)["definition"]>>[1] {
    return {
      createBoard: (request) => {
        this.machine(request.machine).board = request;
        return { deviceTree: new Uint8Array([0xd0, 0x0d, 0xfe, 0xed]) };
      },
      destroyBoard: ({ machine }) => {
        const fake = this.machine(machine);
        if (!fake.board) throw new ContractError("not-found", "no board");
        fake.board = undefined;
        for (const watch of fake.boardWatches.splice(0)) watch.close();
        for (const { channel } of fake.consoles.splice(0)) channel.close();
        return {};
      },
      pauseBoard: ({ machine }) => (this.machine(machine).paused.add("board"), {}),
      resumeBoard: ({ machine }) => (this.machine(machine).paused.delete("board"), {}),
      saveBoard: () => ({ state: Uint8Array.of(3) }),
      restoreBoard: ({ machine, state }) => (this.machine(machine).restored.push(`board ${state}`), {}),
      describeBoard: ({ machine }) => ({
        windows: this.machine(machine).board!.devices.map(({ id, kind }, slot) => ({
          base: 0x1000_1000n + BigInt(slot) * 0x1000n,
          bytes: 0x1000n,
          device: id,
          compatible: kind,
          interrupt: slot + 1,
        })),
      }),
      readBoardStats: () => ({ counters: new Map([["serial0.write", 9n]]) }),
      watchBoard: ({ machine }, out) => {
        const fake = this.machine(machine);
        if (!fake.board) return out.close(new ContractError("not-found", "no board"));
        fake.boardWatches.push(out);
        out.send({ machine, state: "on", exitCode: 0, reason: "" });
      },
      console: (channel) => {
        let attached = false;
        channel.onMessage(({ machine, console, data }) => {
          const fake = this.machine(machine);
          if (!attached) fake.consoles.push({ console, channel });
          if (!attached && console === "serial0") fake.print("serial0", "Kernel panic - not syncing\n");
          attached = true;
          const line = new TextDecoder().decode(data).trim();
          if (console === "agent") this.#agent(fake, line);
          else if (line) fake.print(console, `echo ${line}\n`);
        });
      },
    };
  }

  /** The guest's end of the agent protocol. */
  #agent(machine: FakeMachine, line: string): void {
    const [word, id, argument] = line.split(" ");
    if (word === "HALT") machine.boardEvent("powered-off");
    if (word === "PING") machine.print("agent", `PONG ${id}\n`);
    if (word === "EXEC") {
      machine.print("agent", `OUT ${id} ${argument}\nERR ${id} ${btoa("to stderr")}\nOUT 12345 ${btoa("nobody asked")}\nEXIT ${id} 3\n`);
    }
  }

  #network(): Parameters<typeof mediated<(typeof NETWORK)["definition"]>>[1] {
    return {
      listNetworks: () => ({ networks: [] }),
      listPorts: ({ machine }) => ({ ports: [...this.ports.values()].filter((port) => machine === "" || port.machine === machine) }),
      createNetwork: (request) => request,
      createPort: ({ port }) => (this.ports.set(port!.id, port!), { port }),
      deletePort: ({ id }) => {
        if (!this.ports.delete(id)) throw new ContractError("not-found", "no port");
        return {};
      },
      readNetworkStats: () => ({ counters: new Map([["net0.rx_frames", 4n]]) }),
    };
  }

  #images(): Parameters<typeof mediated<(typeof IMAGE)["definition"]>>[1] {
    const blob = (digest: string): Uint8Array => {
      const bytes = this.blobs.get(digest);
      if (!bytes) throw new ContractError("not-found", `no blob ${digest}`);
      return bytes;
    };
    return {
      statBlob: ({ digest }) => ({ bytes: BigInt(blob(digest).length) }),
      readBlob: ({ digest, offset, length }, out) => {
        const bytes = blob(digest);
        out.send({ data: bytes.subarray(Number(offset), length ? Number(offset + length) : bytes.length) });
        out.close();
      },
      writeBlob: (channel) => {
        channel.onMessage(({ data }) => {
          channel.send({ digest: this.putBlob(data), bytes: BigInt(data.length) });
          channel.close();
        });
      },
      setPins: ({ owner, digests }) => {
        if (digests.length === 0) this.pins.delete(owner);
        else this.pins.set(owner, digests);
        return {};
      },
      cloneDisk: ({ id, newId }) => {
        const disk = this.disks.get(id)!;
        this.disks.set(newId, disk);
        return { disk: { ...Disk.fromPartial(disk), id: newId } };
      },
      resolveBox: ({ reference }) => {
        const box = this.boxes.get(reference);
        if (!box) throw new ContractError("not-found", `no box ${reference}`);
        return { box };
      },
      createDisk: ({ disk }) => (this.disks.set(disk!.id, disk!), { disk }),
      deleteDisk: ({ id }) => {
        if (!this.disks.delete(id)) throw new ContractError("not-found", "no disk");
        return {};
      },
    };
  }

  #side(service: string): ServiceSide {
    const rules = new Map<string, Rule>();
    this.rules.set(service, rules);
    const mediation = mediated(MEDIATION, {
      addRule: ({ rule }) => {
        if (/^bad$|\($/.test(rule!.expression) && service === "device-bus") throw new ContractError("invalid", "CEL: bad");
        rules.set(rule!.id, rule!);
        return { rule };
      },
      removeRule: ({ id }) => ({ removed: rules.delete(id) }),
      listRules: () => ({ rules: [...rules.values()].map((rule) => ({ ...rule, hits: 2n })) }),
      readCounters: () => ({
        planes: [{ plane: "exits", method: "exits", seen: 5n, executed: 5n, denied: 0n, dropped: 0n, modified: 0n, duplicated: 0n, service }],
      }),
      trace: ({ expression }, out) => {
        if (expression.endsWith("(")) return out.close(new ContractError("invalid", "CEL: bad"));
        out.send({ timeMs: 1, service, plane: "exits", method: "exits", machine: "web", direction: "request", verdict: "executed", messageJson: "{}", lost: 0n });
      },
    });
    const kit = mediated(KIT, {
      describe: () => {
        if (this.silent.has(service)) return new Promise(() => {});
        return { service, version: "0.1.0", pid: 1, address: "", uptimeMs: 1n, unimplemented: [], facts: new Map() };
      },
    });
    return { address: `unix:/run/${service}.sock`, mediation, kit };
  }
}
