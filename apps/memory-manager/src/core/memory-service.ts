import { ContractError, type Implementation } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import type { MEMORY, SharedMemorySource } from "@polyvisor/contracts/memory";
import type { ServiceContext } from "@polyvisor/service-kit";
import type { MemoryManagerConfig } from "../config.ts";
import { serveDma } from "./dma-stream.ts";
import { serveLease, type LeaseHost } from "./lease-stream.ts";
import { populate } from "./populate.ts";
import type { MakeBacking } from "./ram.ts";
import { restoreSpace, snapshotSpace } from "./snapshot.ts";
import { parseSpec, sameSpec, Space } from "./space.ts";

/** Bytes in one ReadMemory or WriteMemory. */
export const MAX_COPY_BYTES = 1024 * 1024;
/** Acquires of one holder that may wait at a time: far more than harts can have faults open. */
const WAITING_ACQUIRES = 4096;

/** The core: spaces by machine, and the contract's methods over them. */
export class MemoryService implements LeaseHost, SharedMemorySource {
  readonly #makeBacking: MakeBacking;
  readonly #config: MemoryManagerConfig;
  readonly #images: ImagePort;
  readonly #context: ServiceContext;
  readonly #spaces = new Map<string, Space>();
  #created = 0;

  constructor(config: MemoryManagerConfig, images: ImagePort, makeBacking: MakeBacking, context: ServiceContext) {
    this.#config = config;
    this.#images = images;
    this.#context = context;
    this.#makeBacking = makeBacking;
  }

  readonly implementation: Implementation<typeof MEMORY.definition> = {
    createSpace: (request) => {
      const spec = parseSpec(request);
      const existing = this.#spaces.get(spec.machine);
      if (existing && sameSpec(existing.spec, spec)) return {};
      if (existing) {
        throw new ContractError("already-exists", `createSpace: ${spec.machine} has a space of another shape; destroy it first`);
      }
      if (this.#spaces.size >= this.#config.maxSpaces) {
        throw new ContractError("exhausted", `createSpace: ${this.#spaces.size} spaces exist; destroy one (limit ${this.#config.maxSpaces})`);
      }
      const { sharedLeases, grantPages, grantDataBytes, holderTimeoutMs } = this.#config;
      const limits = { grantPages, grantDataBytes, waitingAcquires: WAITING_ACQUIRES };
      const deadline = { clock: this.#context.clock, ms: holderTimeoutMs };
      const token = `memory:${spec.machine}#${++this.#created}`;
      const backing = this.#makeBacking({ offset: spec.reserveBytes, bytes: spec.bytes });
      this.#spaces.set(spec.machine, new Space(spec, backing, token, sharedLeases, limits, deadline));
      this.#fact(spec.machine, "space-created", { ramBytes: spec.bytes });
      return {};
    },
    destroySpace: ({ machine }) => {
      const space = this.#spaces.get(machine);
      if (!space) return {}; // already so: destroying twice is one destruction
      this.#spaces.delete(machine);
      space.destroy();
      this.#fact(machine, "space-destroyed", {});
      return {};
    },
    populate: async (request) => ({ bytes: await populate(this.space("populate", request.machine), request, this.#images) }),
    readMemory: async ({ machine, address, length }) => {
      const space = this.space("readMemory", machine);
      const offset = space.offsetOf("readMemory", address, copyLength("readMemory", length));
      const data = new Uint8Array(length);
      await space.accessed("readMemory", [{ offset, write: false, buffer: data }]);
      return { data };
    },
    writeMemory: async ({ machine, address, data }) => {
      const space = this.space("writeMemory", machine);
      const offset = space.offsetOf("writeMemory", address, copyLength("writeMemory", data.length));
      await space.accessed("writeMemory", [{ offset, write: true, buffer: data }]);
      return {};
    },
    setGrants: ({ machine, device, grants }) => {
      const space = this.space("setGrants", machine);
      space.grants.set(device, grants, (base, bytes) => space.contains(base, bytes));
      return {};
    },
    snapshotSpace: ({ machine }) => snapshotSpace(this.space("snapshotSpace", machine), this.#images),
    restoreSpace: async ({ machine, digest }) => {
      await restoreSpace(this.space("restoreSpace", machine), digest, this.#images);
      return {};
    },
    readSpaceStats: ({ machine }) => this.space("readSpaceStats", machine).stats(),
    listSpaces: () => ({ machines: [...this.#spaces.keys()].sort() }),
    lease: (channel) => serveLease(channel, this),
    dma: (channel) => serveDma(channel, (machine) => this.#spaces.get(machine)),
  };

  shared(token: string) {
    for (const { ram, spec, token: own } of this.#spaces.values()) {
      if (own === token) return { memory: ram.memory, ramOffset: ram.ramOffset, ramBytes: spec.bytes };
    }
    return undefined;
  }
  space(operation: string, machine: string): Space {
    const space = this.#spaces.get(machine);
    if (!space) throw new ContractError("not-found", `${operation}: machine ${JSON.stringify(machine)} has no space; create it first`);
    return space;
  }
  leaseLost(space: Space, holder: string, pages: number): void {
    const { machine } = space.spec;
    this.#context.log.error({ machine, holder, pages }, "a holder went away with pages that it may have written");
    this.#fact(machine, "lease-lost", { holder, pages });
  }
  close(): void {
    for (const space of this.#spaces.values()) space.destroy();
    this.#spaces.clear();
  }
  describe(): Record<string, string> {
    return { spaces: String(this.#spaces.size), sharedLeases: String(this.#config.sharedLeases) };
  }
  #fact(machine: string, fact: string, data: Record<string, unknown>): void {
    this.#context.events.publish({ machine, service: "memory-manager", fact, data });
  }
}

function copyLength(operation: string, length: number): number {
  if (length <= MAX_COPY_BYTES) return length;
  throw new ContractError("invalid", `${operation}: ${length} bytes; at most ${MAX_COPY_BYTES} in one call`);
}
