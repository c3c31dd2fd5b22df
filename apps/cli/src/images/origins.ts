import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Home } from "../stack/home.ts";

/** Where a box was brought from, so that `hv box outdated` can ask there again. */
export interface Origin {
  /** A reference in a registry, or a catalogue's file or URL. */
  readonly from: string;
  readonly kind: "registry" | "catalogue" | "file";
  /** Of a catalogue's box. */
  readonly version?: string;
  /** What it was then. */
  readonly digest: string;
}

/** `$HV_HOME/boxes.json`: "name:tag" → origin. */
export class Origins {
  readonly #path: string;
  constructor(home: Home) {
    this.#path = join(home.root, "boxes.json");
  }

  all(): Record<string, Origin> {
    if (!existsSync(this.#path)) return {};
    try {
      return JSON.parse(readFileSync(this.#path, "utf8")) as Record<string, Origin>;
    } catch {
      return {}; // only remarks: a damaged file is as good as none
    }
  }

  set(box: string, origin: Origin | undefined): void {
    const all = this.all();
    if (origin) all[box] = origin;
    else delete all[box];
    mkdirSync(dirname(this.#path), { recursive: true });
    writeFileSync(`${this.#path}.new`, `${JSON.stringify(all, null, 2)}\n`);
    renameSync(`${this.#path}.new`, this.#path);
  }
}
