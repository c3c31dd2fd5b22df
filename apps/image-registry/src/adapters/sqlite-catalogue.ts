import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import type { Catalogue, CatalogueChange, GarbageQueries, ManifestRecord, TagRecord, UploadRecord } from "../core/distribution/catalogue.ts";
import { StorageError } from "../core/files.ts";

const VERSION = 1;
const SCHEMA = `
CREATE TABLE tags (repository TEXT, tag TEXT, digest TEXT NOT NULL, tagged_ms INTEGER NOT NULL, PRIMARY KEY (repository, tag)) WITHOUT ROWID, STRICT;
CREATE TABLE manifests (
  repository TEXT, digest TEXT, media_type TEXT NOT NULL, bytes INTEGER NOT NULL, depth INTEGER NOT NULL, subject TEXT, artifact_type TEXT,
  annotations TEXT, pushed_ms INTEGER NOT NULL, PRIMARY KEY (repository, digest)
) WITHOUT ROWID, STRICT;
CREATE INDEX manifests_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifests_digest ON manifests (digest);
CREATE TABLE refs (repository TEXT, manifest TEXT, digest TEXT, PRIMARY KEY (repository, manifest, digest)) WITHOUT ROWID, STRICT;
CREATE INDEX refs_digest ON refs (digest, repository);
CREATE TABLE blobs (repository TEXT, digest TEXT, bytes INTEGER NOT NULL, touched_ms INTEGER NOT NULL, PRIMARY KEY (repository, digest)) WITHOUT ROWID, STRICT;
CREATE INDEX blobs_digest ON blobs (digest, repository);
CREATE TABLE uploads (id TEXT PRIMARY KEY, repository TEXT NOT NULL, started_ms INTEGER NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE pins (owner TEXT, digest TEXT, PRIMARY KEY (owner, digest)) WITHOUT ROWID, STRICT;
CREATE INDEX pins_digest ON pins (digest);
PRAGMA user_version = ${VERSION};
`;
/** Another process may hold the write lock for one batch. */
const BUSY_MS = 10_000;
/** How long a batch waits for more while many write: about what a sync takes. */
const GATHER_MS = 3;
const MANIFEST = "SELECT digest, media_type AS mediaType, bytes, depth, subject, artifact_type AS artifactType, annotations, pushed_ms AS pushedUnixMs FROM manifests";
const TAG = "SELECT tag, digest, tagged_ms AS taggedUnixMs FROM tags";
const UPLOAD = "SELECT id, repository, started_ms AS startedUnixMs FROM uploads";

interface Waiting {
  run(): unknown;
  readonly durable: boolean;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/**
 * The catalogue in SQLite's write-ahead log. Changes that arrive while the event loop is busy share one transaction and
 * so one fsync: 32 pushers cost little more than one. Several processes may have the file open.
 */
export class SqliteCatalogue implements Catalogue {
  readonly garbage: GarbageQueries;
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #change: CatalogueChange;
  #waiting: Waiting[] = [];
  /** The last batch had several changes, so more are on their way: waiting for them saves syncs. */
  #gather = false;
  #durable: boolean | undefined;

  constructor(path: string) {
    this.#database = new DatabaseSync(path, { timeout: BUSY_MS });
    this.#database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF");
    this.#exec("BEGIN IMMEDIATE");
    const version = this.#get("PRAGMA user_version")?.["user_version"];
    if (version === 0) this.#database.exec(SCHEMA);
    this.#exec("COMMIT");
    if (version !== 0 && version !== VERSION) throw new StorageError("io", `${path} has version ${String(version)}, expected ${VERSION}; it was written by another release of Polyvisor`);
    this.garbage = this.#garbageQueries();
    this.#change = this.#changes();
  }

  tag(repository: string, tag: string): TagRecord | undefined {
    return this.#get(`${TAG} WHERE repository = ? AND tag = ?`, repository, tag) as TagRecord | undefined;
  }
  tags(repository: string, after: string, limit: number): TagRecord[] {
    return this.#all(`${TAG} WHERE repository = ? AND tag > ? ORDER BY tag LIMIT ?`, repository, after, limit) as unknown as TagRecord[];
  }
  repositories(after: string, limit: number): string[] {
    const sql = "SELECT repository FROM (SELECT repository FROM tags UNION SELECT repository FROM manifests UNION SELECT repository FROM blobs) WHERE repository > ? ORDER BY repository LIMIT ?";
    return this.#all(sql, after, limit).map((row) => row["repository"] as string);
  }
  exists(repository: string): boolean {
    return this.#get("SELECT 1 WHERE EXISTS (SELECT 1 FROM manifests WHERE repository = ?1) OR EXISTS (SELECT 1 FROM blobs WHERE repository = ?1)", repository) !== undefined;
  }
  manifest(repository: string, digest: string): ManifestRecord | undefined {
    const row = this.#get(`${MANIFEST} WHERE repository = ? AND digest = ?`, repository, digest);
    return row && manifestOf(row);
  }
  tagged(repository: string, tag: string): ManifestRecord | undefined {
    const row = this.#get(`${MANIFEST} WHERE repository = ?1 AND digest = (SELECT digest FROM tags WHERE repository = ?1 AND tag = ?2)`, repository, tag);
    return row && manifestOf(row);
  }
  referrers(repository: string, subject: string, after: string, limit: number): ManifestRecord[] {
    return this.#all(`${MANIFEST} WHERE repository = ? AND subject = ? AND digest > ? ORDER BY digest LIMIT ?`, repository, subject, after, limit).map(manifestOf);
  }
  blob(repository: string, digest: string): number | undefined {
    return this.#get("SELECT bytes FROM blobs WHERE repository = ? AND digest = ?", repository, digest)?.["bytes"] as number | undefined;
  }
  repositoryOf(digest: string): string | undefined {
    return this.#get("SELECT repository FROM blobs WHERE digest = ? LIMIT 1", digest)?.["repository"] as string | undefined;
  }
  upload(id: string): UploadRecord | undefined {
    return this.#get(`${UPLOAD} WHERE id = ?`, id) as UploadRecord | undefined;
  }
  usedBytes(repository?: string): number {
    const row =
      repository === undefined
        ? this.#get("SELECT coalesce(sum(bytes), 0) AS bytes FROM (SELECT max(bytes) AS bytes FROM blobs GROUP BY digest)")
        : this.#get("SELECT coalesce(sum(bytes), 0) AS bytes FROM blobs WHERE repository = ?", repository);
    return row?.["bytes"] as number;
  }

  usage(): { name: string; tags: number; bytes: number }[] {
    const sql = `SELECT name, (SELECT count(*) FROM tags WHERE repository = name) AS tags, (SELECT coalesce(sum(bytes), 0) FROM blobs WHERE repository = name) AS bytes
      FROM (SELECT repository AS name FROM tags UNION SELECT repository FROM manifests UNION SELECT repository FROM blobs) ORDER BY name`;
    return this.#all(sql) as unknown as { name: string; tags: number; bytes: number }[];
  }

  write<T>(change: (to: CatalogueChange) => T, durability: "durable" | "lazy" = "durable"): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ run: () => change(this.#change), durable: durability === "durable", resolve: resolve as (value: unknown) => void, reject });
      if (this.#waiting.length > 1) return;
      if (this.#gather) setTimeout(() => this.#flush(), GATHER_MS);
      else setImmediate(() => this.#flush());
    });
  }

  close(): void {
    if (!this.#database.isOpen) return;
    this.#flush();
    this.#statements.clear();
    this.#database.close();
  }

  /** One transaction for all that wait; a change that throws takes only itself back. */
  #flush(): void {
    const batch = this.#waiting;
    this.#waiting = [];
    if (batch.length === 0) return;
    this.#gather = batch.length > 1;
    const settled: (() => void)[] = [];
    try {
      const durable = batch.some((change) => change.durable);
      if (durable !== this.#durable) this.#exec(durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
      this.#durable = durable;
      this.#statement("BEGIN IMMEDIATE").run();
      for (const { run, resolve, reject } of batch) {
        this.#statement("SAVEPOINT change").run();
        try {
          const value = run();
          settled.push(() => resolve(value));
        } catch (error) {
          if (!this.#database.isTransaction) throw error; // SQLite gave the whole transaction up: the disk is full
          this.#statement("ROLLBACK TO change").run();
          settled.push(() => reject(storageError(error)));
        }
        this.#statement("RELEASE change").run();
      }
      this.#statement("COMMIT").run();
    } catch (error) {
      if (this.#database.isTransaction) this.#exec("ROLLBACK");
      for (const { reject } of batch) reject(storageError(error));
      return;
    }
    for (const settle of settled) settle();
  }

  #changes(): CatalogueChange {
    const run = (sql: string, ...values: SQLInputValue[]): boolean => Number(this.#statement(sql).run(...values).changes) > 0;
    return {
      read: this,
      putManifest: (repository, record, references) => {
        run(
          "INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", repository, record.digest, record.mediaType, record.bytes, record.depth,
          record.subject ?? null, record.artifactType ?? null, record.annotations ? JSON.stringify(record.annotations) : null, record.pushedUnixMs,
        );
        for (const digest of references) run("INSERT OR IGNORE INTO refs VALUES (?, ?, ?)", repository, record.digest, digest);
      },
      deleteManifest: (repository, digest) => {
        run("DELETE FROM refs WHERE repository = ? AND manifest = ?", repository, digest);
        run("DELETE FROM tags WHERE repository = ? AND digest = ?", repository, digest);
        return run("DELETE FROM manifests WHERE repository = ? AND digest = ?", repository, digest);
      },
      putTag: (repository, { tag, digest, taggedUnixMs }) => void run("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?)", repository, tag, digest, taggedUnixMs),
      deleteTag: (repository, tag) => run("DELETE FROM tags WHERE repository = ? AND tag = ?", repository, tag),
      putBlob: (repository, digest, bytes, unixMs) => void run("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?)", repository, digest, bytes, unixMs),
      deleteBlob: (repository, digest) => run("DELETE FROM blobs WHERE repository = ? AND digest = ?", repository, digest),
      touchBlob: (repository, digest, unixMs) => void run("UPDATE blobs SET touched_ms = ? WHERE repository = ? AND digest = ?", unixMs, repository, digest),
      putUpload: ({ id, repository, startedUnixMs }) => void run("INSERT INTO uploads VALUES (?, ?, ?)", id, repository, startedUnixMs),
      deleteUpload: (id) => run("DELETE FROM uploads WHERE id = ?", id),
      setPins: (owner, digests) => {
        run("DELETE FROM pins WHERE owner = ?", owner);
        for (const digest of digests) run("INSERT OR IGNORE INTO pins VALUES (?, ?)", owner, digest);
      },
    };
  }

  #garbageQueries(): GarbageQueries {
    type Row = { repository: string; digest: string };
    return {
      looseBlobs: (before) =>
        this.#all(
          "SELECT repository, digest FROM blobs b WHERE touched_ms < ? AND NOT EXISTS (SELECT 1 FROM refs r WHERE r.digest = b.digest AND r.repository = b.repository)", before,
        ) as unknown as Row[],
      untaggedManifests: (before) =>
        this.#all(
          `SELECT repository, digest FROM manifests m WHERE pushed_ms < ?
             AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository = m.repository AND t.digest = m.digest)
             AND NOT EXISTS (SELECT 1 FROM refs r WHERE r.digest = m.digest AND r.repository = m.repository)
             AND (subject IS NULL OR NOT EXISTS (SELECT 1 FROM manifests s WHERE s.repository = m.repository AND s.digest = m.subject))`, before,
        ) as unknown as Row[],
      needed: (digest) =>
        this.#get(
          `SELECT 1 WHERE EXISTS (SELECT 1 FROM blobs WHERE digest = ?1) OR EXISTS (SELECT 1 FROM refs WHERE digest = ?1)
             OR EXISTS (SELECT 1 FROM manifests WHERE digest = ?1) OR EXISTS (SELECT 1 FROM pins WHERE digest = ?1)`, digest,
        ) !== undefined,
      allNeeded: () =>
        new Set(
          this.#all("SELECT digest FROM blobs UNION SELECT digest FROM refs UNION SELECT digest FROM manifests UNION SELECT digest FROM pins").map((row) => row["digest"] as string),
        ),
      uploads: () => this.#all(UPLOAD) as unknown as UploadRecord[],
      pins: () => this.#all("SELECT owner, digest FROM pins ORDER BY owner, digest") as unknown as { owner: string; digest: string }[],
    };
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, (statement = this.#database.prepare(sql)));
    return statement;
  }
  #exec(sql: string): void {
    this.#database.exec(sql);
  }
  #get(sql: string, ...values: SQLInputValue[]): Record<string, unknown> | undefined {
    return this.#statement(sql).get(...values);
  }
  #all(sql: string, ...values: SQLInputValue[]): Record<string, unknown>[] {
    return this.#statement(sql).all(...values);
  }
}

function manifestOf(row: Record<string, unknown>): ManifestRecord {
  const { digest, mediaType, bytes, depth, subject, artifactType, annotations, pushedUnixMs } = row as { [K in keyof ManifestRecord]: never };
  return {
    digest, mediaType, bytes, depth, pushedUnixMs,
    subject: subject ?? undefined,
    artifactType: artifactType ?? undefined,
    annotations: annotations === null ? undefined : (JSON.parse(annotations) as Record<string, string>),
  };
}

/** SQLITE_FULL is 13, SQLITE_IOERR 10 (sqlite.org/rescode.html); what a change throws by itself stays as it is. */
function storageError(error: unknown): unknown {
  const code = (error as { errcode?: number }).errcode;
  if (code === undefined) return error;
  return new StorageError((code & 0xff) === 13 ? "no-space" : "io", `catalogue: ${(error as Error).message}`, { cause: error });
}
