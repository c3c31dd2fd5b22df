import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { ContractError } from "@polyvisor/contracts";
import { MachineSpec, type MachineState } from "@polyvisor/contracts/orchestrator";
import type { MachineRecord, MachineStore } from "../core/machine-store.ts";

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
    }));
  }

  save(record: MachineRecord): void {
    this.#database
      .prepare("insert or replace into machines values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
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
      );
  }

  remove(name: string): void {
    this.#database.prepare("delete from machines where name = ?").run(name);
  }

  close(): void {
    if (this.#database.isOpen) this.#database.close();
  }
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
}
