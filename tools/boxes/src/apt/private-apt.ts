import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { BoxBuildError } from "../built-box.ts";
import type { DebianMirror } from "./debian-mirror.ts";

/** Names that Debian gives to its suites besides their codenames (Debian policy of suites: deb822 `Suite` field). */
const SUITE_ALIASES = ["stable", "oldstable", "testing"] as const;

/** A package file as the signed lists describe it. */
export interface AptPackage {
  readonly name: string;
  readonly version: string;
  readonly fileName: string;
  readonly bytes: number;
  readonly sha256: string;
}

/**
 * apt with a configuration, lists and cache of its own: any architecture and suite, no root, nothing of the machine's
 * package state touched (apt.conf(5); facts page, "Getting packages without root").
 */
export class PrivateApt {
  readonly #dir: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #suite: string;
  readonly #source: (suite: string) => string;

  constructor(options: { dir: string; mirror: DebianMirror; suite: string; architecture: string; env: NodeJS.ProcessEnv }) {
    const { dir, mirror, suite, architecture } = options;
    this.#dir = dir;
    for (const sub of ["lists/partial", "cache/archives/partial", "packages"]) mkdirSync(join(dir, sub), { recursive: true });
    const signed = mirror.signedBy ? ` signed-by=${mirror.signedBy}` : "";
    this.#suite = suite;
    this.#source = (name) => `deb [arch=${architecture}${signed}] ${mirror.uri} ${name} main\n`;
    writeFileSync(join(dir, "status"), "");
    const quoted = (path: string): string => JSON.stringify(join(dir, path));
    writeFileSync(
      join(dir, "apt.conf"),
      [
        `APT::Architecture "${architecture}";`,
        `APT::Architectures { "${architecture}"; };`,
        `Dir::Etc::sourcelist ${quoted("sources.list")};`,
        `Dir::Etc::sourceparts "-";`,
        `Dir::State ${quoted("state")};`,
        `Dir::State::lists ${quoted("lists")};`,
        `Dir::State::status ${quoted("status")};`,
        `Dir::Cache ${quoted("cache")};`,
        `Acquire::Languages "none";`,
        `Acquire::Retries "2";`,
        `APT::Sandbox::User "";`, // else root downloads as _apt, which may not enter our directory
        "",
      ].join("\n"),
    );
    this.#env = { ...options.env, APT_CONFIG: join(dir, "apt.conf"), LC_ALL: "C" };
  }

  /**
   * Fetches the package lists. While a mirror (or a cache before it) takes a new release in, its lists of a suite may not
   * fit the signed Release file for hours; the suite's other names ("stable") are other files there, and may fit.
   */
  async update(log: (line: string) => void = () => {}): Promise<void> {
    let failure: unknown;
    for (const suite of [this.#suite, ...SUITE_ALIASES]) {
      writeFileSync(join(this.#dir, "sources.list"), this.#source(suite));
      try {
        await run("apt-get", ["update", "-q", "-o", "APT::Update::Error-Mode=any"], { env: this.#env });
        if (suite === this.#suite || this.#codename(suite) === this.#suite) return;
      } catch (error) {
        failure ??= error;
        if (!/Mirror sync in progress|Hash Sum mismatch|unexpected size/i.test(String(error))) throw failure;
        log(`the mirror's lists of ${suite} do not fit together now; trying the suite's other names`);
      }
    }
    throw failure;
  }

  /** The release that a suite's name stands for today, from its signed Release file. */
  #codename(suite: string): string | undefined {
    const lists = join(this.#dir, "lists");
    const file = readdirSync(lists).find((name) => name.endsWith(`_dists_${suite}_InRelease`));
    return file && /^Codename: (\S+)$/m.exec(readFileSync(join(lists, file), "utf8"))?.[1];
  }

  /** The `Depends` field of a package's newest version, split at commas. */
  async depends(name: string): Promise<string[]> {
    const { stdout } = await run("apt-cache", ["show", "--no-all-versions", name], { env: this.#env });
    const field = /^Depends: (.*)$/m.exec(stdout)?.[1] ?? "";
    return field.split(",").map((d) => d.trim()).filter((d) => d !== "");
  }

  /** File, size and SHA-256 of each package, from the lists that the archive's key signed. */
  async describe(names: readonly string[]): Promise<AptPackage[]> {
    const { stdout } = await run("apt-get", ["download", "--print-uris", "-q", ...names], { env: this.#env });
    const found = [...stdout.matchAll(/^'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})$/gm)].map((m) => {
      const fileName = m[2] as string;
      const [name = "", version = ""] = fileName.split("_");
      return { name, version: decodeURIComponent(version), fileName, bytes: Number(m[3]), sha256: m[4] as string };
    });
    return names.map((name) => {
      const p = found.find((f) => f.name === name);
      if (!p) throw new BoxBuildError(`apt did not describe ${name} with a SHA-256; it said: ${stdout.trim()}`);
      return p;
    });
  }

  /** Names of everything that these need (apt's patterns work too, "?essential"), themselves included; recommendations are left out. */
  async closure(names: readonly string[]): Promise<string[]> {
    const { stdout } = await run("apt-get", ["install", "--print-uris", "-y", "-qq", "--no-install-recommends", ...names], { env: this.#env });
    return [...stdout.matchAll(/^'[^']+' ([^_\s]+)_\S+\.deb /gm)].map((match) => match[1] as string);
  }

  /** Path of the package's file, verified against the signed lists; downloaded unless it is here already. */
  async fetch(p: AptPackage, onBytes: (done: number) => void): Promise<string> {
    return (await this.fetchAll([p], onBytes))[0] as string;
  }

  /** The same for many at once, in one connection. `onBytes`: of all that had to be downloaded. */
  async fetchAll(packages: readonly AptPackage[], onBytes: (done: number) => void): Promise<string[]> {
    const kept = (p: AptPackage): string => join(this.#dir, "packages", `${p.sha256}.deb`);
    const missing = packages.filter((p) => !existsSync(kept(p)) || statSync(kept(p)).size !== p.bytes);
    const total = missing.reduce((sum, p) => sum + p.bytes, 0);
    if (missing.length === 0) return packages.map(kept);
    const scratch = await mkdtemp(join(this.#dir, "download-"));
    try {
      // apt reports "dlstatus:<items>:<percent>:<text>" on the status descriptor (apt's README.progress-reporting).
      await run("apt-get", ["download", "-q", "-o", "APT::Status-Fd=3", ...missing.map((p) => `${p.name}=${p.version}`)], {
        env: this.#env,
        cwd: scratch,
        onStatus: (line) => {
          const percent = /^dlstatus:[^:]*:([\d.]+):/.exec(line)?.[1];
          if (percent !== undefined) onBytes(Math.floor((Number(percent) / 100) * total));
        },
      });
      for (const p of missing) {
        const file = join(scratch, p.fileName);
        const got = await sha256OfFile(file);
        if (got !== p.sha256) throw new BoxBuildError(`${p.fileName}: sha256 is ${got}, the signed list says ${p.sha256}; run again`);
        renameSync(file, kept(p));
      }
      onBytes(total);
      return packages.map(kept);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }
}

/** The package's files as a tar stream, given to `read`. Uses dpkg-deb, which every machine with apt has. */
export async function packageFiles(
  deb: string,
  read: (tar: AsyncIterable<Uint8Array>) => Promise<void>,
  part: "--fsys-tarfile" | "--ctrl-tarfile" = "--fsys-tarfile",
): Promise<void> {
  const child = spawn("dpkg-deb", [part, deb], { stdio: ["ignore", "pipe", "pipe"] });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const ended = new Promise<number | null>((resolve, reject) => child.on("error", reject).on("close", resolve));
  try {
    await Promise.all([read(child.stdout).then(() => child.stdout.resume()), ended]); // unread padding would keep it from closing
  } finally {
    if (child.exitCode === null) child.kill();
  }
  const code = await ended;
  if (code !== 0 && child.signalCode === null) throw new BoxBuildError(`dpkg-deb could not read ${deb}: ${errors.trim()}`);
}

export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest("hex");
}

interface RunOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly onStatus?: (line: string) => void;
}

export async function run(command: string, args: readonly string[], options: RunOptions): Promise<{ stdout: string }> {
  const child = spawn(command, args, { env: options.env, ...(options.cwd ? { cwd: options.cwd } : {}), stdio: ["ignore", "pipe", "pipe", options.onStatus ? "pipe" : "ignore"] });
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const status = child.stdio[3];
  if (options.onStatus && status && "on" in status) {
    let rest = "";
    status.on("data", (text: Buffer) => {
      const lines = (rest + text.toString("utf8")).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) options.onStatus?.(line);
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", (cause: NodeJS.ErrnoException) => {
      const missing = cause.code === "ENOENT" ? `${command} is not on this machine. ${WITHOUT_APT}` : `${command}: ${cause.message}`;
      reject(new BoxBuildError(missing, { cause }));
    });
    child.on("close", resolve);
  });
  if (code !== 0) throw new BoxBuildError(`${command} ${args.join(" ")} failed with status ${code}: ${(stderr || stdout).trim()}`);
  return { stdout };
}

export const WITHOUT_APT =
  "This box is made of Debian packages, which apt fetches: build it on a machine that has apt (Debian, Ubuntu; a container will do), " +
  "copy the cache directory here and name it in HV_BOX_CACHE; or boot your own kernel with `hv up --kernel`.";
