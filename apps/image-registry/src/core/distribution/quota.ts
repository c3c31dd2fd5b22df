import type { Catalogue } from "./catalogue.ts";
import { DistributionError } from "./distribution-error.ts";

export interface QuotaLimits {
  /** Bytes of all different blobs; 0: no limit. */
  readonly totalBytes: number;
  /** Bytes of one repository's blobs; 0: no limit. */
  readonly repositoryBytes: number;
}

/** What is used is counted anew after so long: every piece of every upload asks. */
const FRESH_MS = 1_000;

/** Refuses what would not fit. Blobs on their way count when they are in, so several at once may go a little over. */
export class Quota {
  readonly #limits: QuotaLimits;
  readonly #catalogue: Catalogue;
  readonly #now: () => number;
  readonly #used = new Map<string, { bytes: number; untilMs: number }>();

  constructor(limits: QuotaLimits, catalogue: Catalogue, now: () => number) {
    this.#limits = limits;
    this.#catalogue = catalogue;
    this.#now = now;
  }

  /** Throws DENIED if `bytes` more in the repository are too many. */
  check(repository: string, bytes: number): void {
    this.#checkOne("", undefined, this.#limits.totalBytes, bytes, "the registry");
    this.#checkOne(repository, repository, this.#limits.repositoryBytes, bytes, `the repository ${repository}`);
  }

  /** A blob has come in: count anew. */
  stored(repository: string): void {
    this.#used.delete("");
    this.#used.delete(repository);
  }

  #checkOne(key: string, repository: string | undefined, limit: number, bytes: number, whose: string): void {
    if (limit === 0) return;
    let used = this.#used.get(key);
    if (!used || used.untilMs <= this.#now() || used.bytes + bytes > limit) {
      used = { bytes: this.#catalogue.usedBytes(repository), untilMs: this.#now() + FRESH_MS };
      if (this.#used.size > 1000) this.#used.clear();
      this.#used.set(key, used);
    }
    if (used.bytes + bytes <= limit) return;
    throw new DistributionError("DENIED", `${whose} may hold ${limit} bytes and holds ${used.bytes}; this push would go over. Delete something and run hv registry gc, or raise the quota`);
  }
}
