import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { ContractError } from "@polyvisor/contracts";
import { Forward, Network, Port } from "@polyvisor/contracts/network";
import type { Lease } from "../core/dhcp-server.ts";
import type { FabricStore } from "../core/fabric-store.ts";

/** Each entry brings the schema from the version of its index to the next; entries are never changed, only added. */
const MIGRATIONS = [
  `create table networks (name text primary key, network text not null) strict;
   create table ports (id text primary key, port text not null) strict;
   create table leases (scope text primary key, leases text not null) strict`,
  "create table forwards (id text primary key, forward text not null) strict",
];

/**
 * Networks, ports, leases and forwards as JSON in SQLite. WAL with synchronous=NORMAL: a commit survives the death of the process
 * (https://www.sqlite.org/pragma.html#pragma_synchronous) and costs no fsync, which a guest that renews its lease in a
 * loop would make everybody wait for. `path` may be ":memory:".
 */
export function sqliteFabricStore(path: string): FabricStore {
  if (path !== ":memory:") mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const database = new DatabaseSync(path);
  try {
    database.exec("pragma journal_mode = wal; pragma synchronous = normal; pragma busy_timeout = 2000");
    const { user_version: version } = database.prepare("pragma user_version").get() as { user_version: number };
    if (version > MIGRATIONS.length) {
      throw new ContractError("precondition", `open network store ${path}: schema version ${version} is newer than ${MIGRATIONS.length}, which this program knows; use the newer program`);
    }
    for (let next = version; next < MIGRATIONS.length; next++) database.exec(`begin; ${MIGRATIONS[next]}; pragma user_version = ${next + 1}; commit`);
  } catch (error) {
    database.close();
    if (error instanceof ContractError) throw error;
    throw new ContractError("corrupt", `open network store ${path}: ${(error as Error).message}; move the file away to start without networks`, { cause: error });
  }
  const all = (sql: string): string[] => (database.prepare(sql).all() as { json: string }[]).map(({ json }) => json);
  const prepared = {
    saveNetwork: database.prepare("insert or replace into networks values (?, ?)"),
    removeNetwork: database.prepare("delete from networks where name = ?"),
    savePort: database.prepare("insert or replace into ports values (?, ?)"),
    removePort: database.prepare("delete from ports where id = ?"),
    saveForward: database.prepare("insert or replace into forwards values (?, ?)"),
    removeForward: database.prepare("delete from forwards where id = ?"),
    leases: database.prepare("select leases as json from leases where scope = ?"),
    saveLeases: database.prepare("insert or replace into leases values (?, ?)"),
    removeLeases: database.prepare("delete from leases where scope = ?"),
  };
  return {
    networks: () => all("select network as json from networks order by rowid").map((json) => Network.fromJSON(JSON.parse(json))),
    saveNetwork: (network) => void prepared.saveNetwork.run(network.name, JSON.stringify(Network.toJSON(network))),
    removeNetwork: (name) => void prepared.removeNetwork.run(name),
    ports: () => all("select port as json from ports order by rowid").map((json) => Port.fromJSON(JSON.parse(json))),
    savePort: (port) => void prepared.savePort.run(port.id, JSON.stringify(Port.toJSON(port))),
    removePort: (id) => void prepared.removePort.run(id),
    leases(scope) {
      const row = prepared.leases.get(scope) as { json: string } | undefined;
      return row ? (JSON.parse(row.json) as Lease[]) : [];
    },
    saveLeases(scope, leases) {
      if (leases.length === 0) prepared.removeLeases.run(scope);
      else prepared.saveLeases.run(scope, JSON.stringify(leases));
    },
    forwards: () => all("select forward as json from forwards order by rowid").map((json) => Forward.fromJSON(JSON.parse(json))),
    saveForward: (forward) => void prepared.saveForward.run(forward.id, JSON.stringify(Forward.toJSON(forward))),
    removeForward: (id) => void prepared.removeForward.run(id),
    close() {
      if (database.isOpen) database.close();
    },
  };
}
