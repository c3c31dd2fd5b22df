/**
 * Which repository has which manifests, tags and blobs: everything about content except the content. One owner, read at
 * once, changed in transactions. adapters/sqlite-catalogue.ts is the real one.
 */
export interface Catalogue {
  tag(repository: string, tag: string): TagRecord | undefined;
  /** Sorted as bytes ("ASCIIbetical"), those after `after`. */
  tags(repository: string, after: string, limit: number): TagRecord[];
  repositories(after: string, limit: number): string[];
  /** A repository exists while anything is in it. */
  exists(repository: string): boolean;
  manifest(repository: string, digest: string): ManifestRecord | undefined;
  /** What a tag names. */
  tagged(repository: string, tag: string): ManifestRecord | undefined;
  /** Sorted by digest, those after `after`. */
  referrers(repository: string, subject: string, after: string, limit: number): ManifestRecord[];
  /** Its size, if the repository has it. */
  blob(repository: string, digest: string): number | undefined;
  /** Some repository that has the blob. */
  repositoryOf(digest: string): string | undefined;
  upload(id: string): UploadRecord | undefined;
  /** Bytes of all different blobs of the repository, or of all repositories. */
  usedBytes(repository?: string): number;
  usage(): { name: string; tags: number; bytes: number }[];
  /** Everything that garbage collection must keep and may not, see garbage.ts. */
  garbage: GarbageQueries;

  /**
   * Runs the change in a transaction with others that wait for one, all or nothing, and resolves with its result when that
   * is durable. "lazy": it survives the death of the process, and may be lost with the machine.
   */
  write<T>(change: (to: CatalogueChange) => T, durability?: "durable" | "lazy"): Promise<T>;
  close(): void;
}

export interface CatalogueChange {
  readonly read: Omit<Catalogue, "write" | "close">;
  /** Replaces the record; its references are what keeps blobs and children from being garbage. */
  putManifest(repository: string, record: ManifestRecord, references: readonly string[]): void;
  /** With the tags that name it. */
  deleteManifest(repository: string, digest: string): boolean;
  putTag(repository: string, record: TagRecord): void;
  deleteTag(repository: string, tag: string): boolean;
  putBlob(repository: string, digest: string, bytes: number, unixMs: number): void;
  deleteBlob(repository: string, digest: string): boolean;
  /** Somebody was told that the blob is there: it is kept for a grace period from then. */
  touchBlob(repository: string, digest: string, unixMs: number): void;
  putUpload(record: UploadRecord): void;
  deleteUpload(id: string): boolean;
  /** Replaces what an owner outside the catalogue (a machine) needs; none: forgets the owner. */
  setPins(owner: string, digests: readonly string[]): void;
}

export interface TagRecord {
  readonly tag: string;
  readonly digest: string;
  readonly taggedUnixMs: number;
}

export interface ManifestRecord {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: number;
  /** Levels of indexes below: 0 for a manifest. */
  readonly depth: number;
  readonly subject: string | undefined;
  readonly artifactType: string | undefined;
  readonly annotations: Readonly<Record<string, string>> | undefined;
  readonly pushedUnixMs: number;
}

/** An upload that has begun; its bytes so far are the file uploads/<id>. */
export interface UploadRecord {
  readonly id: string;
  readonly repository: string;
  readonly startedUnixMs: number;
}

export interface GarbageQueries {
  /** Blobs of a repository that no manifest of it needs and that nobody asked for since. */
  looseBlobs(touchedBeforeUnixMs: number): { repository: string; digest: string }[];
  /** Manifests that no tag, no index and no living subject leads to, pushed before. */
  untaggedManifests(pushedBeforeUnixMs: number): { repository: string; digest: string }[];
  /** Whether any repository, reference or pin needs the content of that digest. */
  needed(digest: string): boolean;
  allNeeded(): ReadonlySet<string>;
  uploads(): UploadRecord[];
  pins(): { owner: string; digest: string }[];
}
