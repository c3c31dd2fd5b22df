import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { compare } from "bcryptjs";
import { ContractError } from "@polyvisor/contracts";
import { DistributionError } from "../core/distribution/distribution-error.ts";
import type { Credentials } from "../core/distribution/access.ts";

/** bcrypt is slow on purpose; a password that was right is right for this long, until the file changes. */
const REMEMBER_MS = 60_000;
/** Checks at once: guessing must not take the processor from guests. */
const MAX_CHECKS = 4;
const MAX_REMEMBERED = 1000;

/** An Apache htpasswd file with bcrypt entries (`htpasswd -B`), read again when it changes. */
export class Passwords {
  readonly #path: string;
  #users = new Map<string, string>();
  #changedMs = -1;
  #checks = 0;
  readonly #right = new Map<string, number>();

  constructor(path: string) {
    this.#path = path;
    this.#load();
  }

  async verify({ username, password }: Credentials): Promise<boolean> {
    this.#load();
    const hash = this.#users.get(username);
    if (hash === undefined || password.length > 1024) return false;
    const key = createHash("sha256").update(`${hash}\0${password}`).digest("hex");
    if ((this.#right.get(key) ?? 0) > Date.now()) return true;
    if (this.#checks >= MAX_CHECKS) throw new DistributionError("TOOMANYREQUESTS", "too many passwords are being checked; try again in a second", { headers: { "retry-after": "1" } });
    this.#checks++;
    try {
      if (!(await compare(password, hash))) return false;
    } finally {
      this.#checks--;
    }
    if (this.#right.size >= MAX_REMEMBERED) this.#right.clear();
    this.#right.set(key, Date.now() + REMEMBER_MS);
    return true;
  }

  #load(): void {
    const changedMs = statSync(this.#path).mtimeMs;
    if (changedMs === this.#changedMs) return;
    const users = new Map<string, string>();
    for (const line of readFileSync(this.#path, "utf8").split("\n")) {
      if (line.trim() === "" || line.startsWith("#")) continue;
      const [, user, hash] = /^([^:\s]+):(\$2[aby]\$\d\d\$[./A-Za-z0-9]{53})\s*$/.exec(line) ?? [];
      if (!user || !hash) throw new ContractError("invalid", `${this.#path}: "${line.slice(0, 20)}…" is no bcrypt entry; make entries with htpasswd -B`);
      users.set(user, hash);
    }
    this.#users = users;
    this.#changedMs = changedMs;
    this.#right.clear();
  }
}
