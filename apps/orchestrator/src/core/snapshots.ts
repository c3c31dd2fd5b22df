import { asContractError, ContractError } from "@polyvisor/contracts";
import type { Disk } from "@polyvisor/contracts/image";
import { MachineState, type Snapshot } from "@polyvisor/contracts/orchestrator";
import type { Clock } from "@polyvisor/service-kit";
import { diskId } from "./boot-plan.ts";
import type { MachineContent } from "./machine-archive.ts";
import type { Machine } from "./machine.ts";
import type { MachineDisk, MachineStore, SnapshotRecord } from "./machine-store.ts";
import { fixedNics } from "./nics.ts";
import type { OrchestratorPeers } from "./peers.ts";
import { pinState, savedOwner } from "./saved-machine.ts";
import { within } from "./time.ts";

const NAME = /^[a-z0-9][a-z0-9-]{0,30}$/;
const SYNC_TIMEOUT_MS = 30_000;

/** Named states of machines: settings, and a clone of the disk that nobody opens. */
export class Snapshots {
  readonly #peers: OrchestratorPeers;
  readonly #store: MachineStore;
  readonly #clock: Clock;

  constructor(peers: OrchestratorPeers, store: MachineStore, clock: Clock) {
    this.#peers = peers;
    this.#store = store;
    this.#clock = clock;
  }

  list(machine: string): SnapshotRecord[] {
    return this.#store.snapshots().filter((each) => machine === "" || each.machine === machine);
  }

  find(machine: string, name: string): SnapshotRecord {
    const found = this.list(machine).find((each) => each.name === name);
    if (found) return found;
    const names = this.list(machine).map((each) => each.name);
    throw new ContractError("not-found", `machine ${machine} has no snapshot "${name.slice(0, 80)}"; ${names.length > 0 ? `it has: ${names.join(", ")}` : `hv snapshot save ${machine} makes one`}`);
  }

  save(machine: Machine, { snapshot: wantedName, note, memory }: { snapshot: string; note: string; memory: boolean }): Promise<SnapshotRecord> {
    const createdUnixMs = this.#clock.now();
    const name = wantedName || new Date(createdUnixMs).toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-");
    if (!NAME.test(name)) throw new ContractError("invalid", `snapshot name "${name.slice(0, 80)}"; expected 1 to 31 of a-z, 0-9 and "-", not beginning with "-"`);
    return machine.hold("snapshot", { mayRun: true, maySaved: true }, async (record, running) => {
      if (memory && !running && !record.saved) throw new ContractError("precondition", `machine ${machine.name} does not run: it has no memory to keep`);
      if (this.list(machine.name).some((each) => each.name === name)) {
        throw new ContractError("already-exists", `machine ${machine.name} has a snapshot ${name} already; choose another name, or: hv snapshot rm ${machine.name} ${name}`);
      }
      const copyDisk = async (): Promise<MachineDisk | undefined> => record.disk && (await this.#copyDisk(record.disk, `${machine.name}/snapshots/${name}`));
      let disk: MachineDisk | undefined;
      let { saved } = record;
      if (running && memory) ({ saved, also: disk } = await machine.copyState(copyDisk));
      else {
        if (running) await this.#sync(machine);
        disk = await copyDisk();
      }
      if (saved) await pinState(this.#peers.images, savedOwner(machine.name, name), saved);
      const snapshot = { machine: machine.name, name, createdUnixMs, note, whileRunning: running, spec: record.spec, disk, saved };
      this.#store.saveSnapshot(snapshot);
      return snapshot;
    });
  }

  /** The machine's disk is dropped for the snapshot's content. A death in between is healed by restoring again. */
  restore(machine: Machine, name: string): Promise<void> {
    return machine.hold("change", { mayRun: false, maySaved: true }, async (record) => {
      const snapshot = this.find(machine.name, name);
      record.saved = undefined;
      record.state = MachineState.HALTED;
      this.#store.save(record); // a saved state and another disk must never meet
      await deleteDisk(this.#peers, record.disk);
      record.disk = snapshot.disk && (await this.#copyDisk(snapshot.disk, diskId(machine.name)));
      record.spec = snapshot.spec;
      await pinState(this.#peers.images, savedOwner(machine.name), snapshot.saved);
      record.saved = snapshot.saved;
      if (snapshot.saved) record.state = MachineState.SAVED;
    });
  }

  async delete(machine: string, name: string): Promise<void> {
    await deleteDisk(this.#peers, this.find(machine, name).disk);
    this.#store.removeSnapshot(machine, name);
    await pinState(this.#peers.images, savedOwner(machine, name), undefined);
  }

  /**
   * Makes a clone called `newName` of settings, disk and, of a suspended machine, its state: the disk is made here, the machine by `make`,
   * while the original stays as it is.
   */
  clone<T>(machine: Machine, newName: string, network: string, make: (content: Pick<SnapshotRecord, "spec" | "disk" | "saved">) => Promise<T>): Promise<T> {
    return machine.hold("snapshot", { mayRun: true, maySaved: true }, async (record, running) => {
      if (running) await this.#sync(machine);
      const disk = record.disk && (await this.#copyDisk(record.disk, diskId(newName)));
      const { spec, saved } = record;
      // Two machines with one address would take it from each other; but a guest that goes on has the address that it has.
      const nics = saved ? fixedNics(spec, network) : spec.nics.map((nic) => ({ ...nic, mac: "", address: "" }));
      // Nor can both have the host's ports.
      const forwards = spec.forwards.map((forward) => ({ ...forward, autoCorrect: true }));
      return make({ spec: { ...spec, name: newName, nics, forwards }, disk, saved });
    });
  }

  /** Runs with the content of a snapshot, or of the machine as it is. */
  content<T>(machine: Machine, snapshot: string, use: (content: MachineContent) => Promise<T>): Promise<T> {
    if (snapshot !== "") return use(this.find(machine.name, snapshot));
    return machine.hold("snapshot", { mayRun: true, maySaved: true }, async (record, running) => {
      if (running) await this.#sync(machine);
      return use({ spec: record.spec, disk: record.disk, createdUnixMs: this.#clock.now(), saved: record.saved });
    });
  }

  /** A running guest writes out what it holds; one without an agent is taken as it stands, as after a power cut. */
  async #sync(machine: Machine): Promise<void> {
    const agent = machine.agentIfReady();
    if (!agent) return;
    await within(this.#clock, SYNC_TIMEOUT_MS, agent.exec("sync", false, () => {}).ended, "sync in the guest").catch(() => {});
  }

  async #copyDisk(from: MachineDisk, id: string): Promise<MachineDisk> {
    const { disk } = await this.#peers.images.cloneDisk({ id: from.id, newId: id });
    return { id, baseDigest: (disk as Disk).baseDigest, baseMediaType: (disk as Disk).baseMediaType, bytes: (disk as Disk).bytes };
  }
}

export function snapshotView({ machine, name, createdUnixMs, disk, note, whileRunning, saved }: SnapshotRecord): Snapshot {
  return { machine, name, createdUnixMs: BigInt(createdUnixMs), diskBytes: disk?.bytes ?? 0n, note, whileRunning, memory: saved !== undefined };
}

async function deleteDisk(peers: OrchestratorPeers, disk: MachineDisk | undefined): Promise<void> {
  if (!disk) return;
  await peers.images.deleteDisk({ id: disk.id }).catch((error: unknown) => {
    if (asContractError(error).condition !== "not-found") throw error;
  });
}
