import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { ContractError } from "@polyvisor/contracts";
import { MachineSpec, type MachineState } from "@polyvisor/contracts/orchestrator";
import type { MachineDisk, MachineRecord, MachineStore, SnapshotRecord } from "../core/machine-store.ts";
import type { SavedState } from "../core/saved-machine.ts";

/** Each entry brings the schema from the version of its index to the next; entries are never changed, only added. */
const MIGRATIONS = [
  `create table machines (
     name text primary key,
     requested text not null,  -- MachineSpec as JSON, as the user asked
     spec text not null,       -- MachineSpec as JSON, defaults filled in
     state integer not null,   -- MachineState
     reason text not null,
     exit_code integer not null,
     created_unix_ms integer not null,
     started_unix_ms integer not null,
     disk_id text, disk_base text, disk_bytes text
   ) strict`,
  "alter table machines add column disk_base_type text",
  `create table snapshots (
     machine text not null, name text not null,
     created_unix_ms integer not null,
     note text not null, while_running integer not null,
     spec text not null,  -- MachineSpec as JSON
     disk text,           -- MachineDisk as JSON, bytes as a string; null: none
     primary key (machine, name)
   ) strict`,
  // SavedState as JSON; null: none
  "alter table machines add column saved text; alter table snapshots add column saved text",
];

/**
 * The machine table in SQLite. WAL with synchronous=FULL: a commit is on the disk before the call returns
 * (https://www.sqlite.org/pragma.html#pragma_synchronous), which is what {@link MachineStore} promises.
 */
export class SqliteMachineStore implements MachineStore {
  readonly #database: DatabaseSync;

  /** `path` may be ":memory:". */
  constructor(path: string) {
    if (path !== ":memory:") mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    this.#database = new DatabaseSync(path);
    try {
      this.#database.exec("pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 2000");
      this.#migrate(path);
    } catch (error) {
      this.#database.close();
      if (error instanceof ContractError) throw error;
      throw new ContractError(
        "corrupt",
        `open machine store ${path}: ${(error as Error).message}; move the file away to start with no machines`,
        { cause: error },
      );
    }
  }

  #migrate(path: string): void {
    const { user_version: version } = this.#database.prepare("pragma user_version").get() as { user_version: number };
    if (version > MIGRATIONS.length) {
      throw new ContractError(
        "precondition",
        `open machine store ${path}: schema version ${version} is newer than ${MIGRATIONS.length}, which this program knows; use the newer program`,
      );
    }
    for (let next = version; next < MIGRATIONS.length; next++) {
      this.#database.exec(`begin; ${MIGRATIONS[next]}; pragma user_version = ${next + 1}; commit`);
    }
  }

  list(): MachineRecord[] {
    const rows = this.#database.prepare("select * from machines order by name").all() as unknown as Row[];
    return rows.map((row) => ({
      name: row.name,
      requested: MachineSpec.fromJSON(JSON.parse(row.requested)),
      spec: MachineSpec.fromJSON(JSON.parse(row.spec)),
      state: row.state as MachineState,
      reason: row.reason,
      exitCode: row.exit_code,
      createdUnixMs: row.created_unix_ms,
      startedUnixMs: row.started_unix_ms,
      disk:
        row.disk_id === null
          ? undefined
          : { id: row.disk_id, baseDigest: row.disk_base ?? "", baseMediaType: row.disk_base_type ?? "", bytes: BigInt(row.disk_bytes ?? "0") },
      saved: parseSaved(row.saved),
    }));
  }

  save(record: MachineRecord): void {
    this.#database
      .prepare("insert or replace into machines values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .run(
        record.name,
        JSON.stringify(MachineSpec.toJSON(record.requested)),
        JSON.stringify(MachineSpec.toJSON(record.spec)),
        record.state,
        record.reason,
        record.exitCode,
        record.createdUnixMs,
        record.startedUnixMs,
        record.disk?.id ?? null,
        record.disk?.baseDigest ?? null,
        record.disk?.bytes.toString() ?? null,
        record.disk?.baseMediaType ?? null,
        record.saved ? JSON.stringify(record.saved) : null,
      );
  }

  remove(name: string): void {
    this.#database.prepare("delete from machines where name = ?").run(name);
  }

  snapshots(): SnapshotRecord[] {
    const rows = this.#database.prepare("select * from snapshots order by created_unix_ms, machine, name").all() as unknown as SnapshotRow[];
    return rows.map((row) => {
      const disk = row.disk === null ? undefined : (JSON.parse(row.disk) as Omit<MachineDisk, "bytes"> & { bytes: string });
      return {
        machine: row.machine,
        name: row.name,
        createdUnixMs: row.created_unix_ms,
        note: row.note,
        whileRunning: row.while_running === 1,
        spec: MachineSpec.fromJSON(JSON.parse(row.spec)),
        disk: disk && { ...disk, bytes: BigInt(disk.bytes) },
        saved: parseSaved(row.saved),
      };
    });
  }

  saveSnapshot({ machine, name, createdUnixMs, note, whileRunning, spec, disk, saved }: SnapshotRecord): void {
    const diskJson = disk ? JSON.stringify({ ...disk, bytes: disk.bytes.toString() }) : null;
    this.#database
      .prepare("insert or replace into snapshots values (?, ?, ?, ?, ?, ?, ?, ?)")
      .run(machine, name, createdUnixMs, note, whileRunning ? 1 : 0, JSON.stringify(MachineSpec.toJSON(spec)), diskJson, saved ? JSON.stringify(saved) : null);
  }

  removeSnapshot(machine: string, name: string): void {
    this.#database.prepare("delete from snapshots where machine = ? and name = ?").run(machine, name);
  }

  close(): void {
    if (this.#database.isOpen) this.#database.close();
  }
}

function parseSaved(text: string | null): SavedState | undefined {
  return text === null ? undefined : (JSON.parse(text) as SavedState);
}

interface Row {
  name: string;
  requested: string;
  spec: string;
  state: number;
  reason: string;
  exit_code: number;
  created_unix_ms: number;
  started_unix_ms: number;
  disk_id: string | null;
  disk_base: string | null;
  disk_bytes: string | null;
  disk_base_type: string | null;
  saved: string | null;
}

interface SnapshotRow {
  machine: string;
  name: string;
  created_unix_ms: number;
  note: string;
  while_running: number;
  spec: string;
  disk: string | null;
  saved: string | null;
}
