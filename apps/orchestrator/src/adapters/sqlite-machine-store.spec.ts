import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { MachineSpec, MachineState } from "@polyvisor/contracts/orchestrator";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { MachineRecord } from "../core/machine-store.ts";
import { SqliteMachineStore } from "./sqlite-machine-store.ts";

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "pv-store-"))));
afterEach(() => rmSync(dir, { recursive: true }));

const spec = MachineSpec.fromPartial({ name: "web", box: "debian/minimal", memoryBytes: 1n << 33n });
const record: MachineRecord = {
  name: "web",
  requested: spec,
  spec,
  state: MachineState.RUNNING,
  reason: "because",
  exitCode: 3,
  createdUnixMs: 1,
  startedUnixMs: 2,
  disk: { id: "web/disk0", baseDigest: "sha256:x", baseMediaType: "application/x", bytes: 1n << 40n },
  saved: {
    harts: { mediaType: "", digest: "sha256:h", bytes: 1 }, board: { mediaType: "", digest: "sha256:b", bytes: 2 },
    memory: [{ mediaType: "m", digest: "sha256:m", bytes: 3 }], savedUnixMs: 4,
  },
};

describe("SqliteMachineStore", () => {
  it("answers after a reopen what was saved before, and forgets what was removed", () => {
    const path = join(dir, "sub", "s.sqlite");
    let store = new SqliteMachineStore(path);
    store.save(record);
    store.save({ ...record, name: "db", disk: undefined });
    store.save({ ...record, reason: "changed" });
    store.remove("db");
    store.close();
    store = new SqliteMachineStore(path);
    expect(store.list()).toEqual([{ ...record, reason: "changed" }]);
    store.close();
  });

  it("refuses a file that is no database, saying how to go on", () => {
    const path = join(dir, "s.sqlite");
    writeFileSync(path, "not a database, but long enough to be looked at as one".repeat(20));
    expect(() => new SqliteMachineStore(path)).toThrow(/move the file away/);
  });

  it("refuses a schema from the future", () => {
    const path = join(dir, "s.sqlite");
    const database = new DatabaseSync(path);
    database.exec("pragma user_version = 99");
    database.close();
    expect(() => new SqliteMachineStore(path)).toThrow(/newer program/);
  });
});
