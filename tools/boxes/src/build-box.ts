import { createHash } from "node:crypto";
import { existsSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, statSync, closeSync, writeFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { isAbsolute, join, relative } from "node:path";
import { BoxBuildError, type BuildOptions, type BuiltBox, type BuiltFile } from "./built-box.ts";
import { buildTiny, tinyKey } from "./tiny/tiny.ts";
import { buildDebianSystem, DEBIAN_13, DEBIAN_DOCKER, debianSystemSources, systemRecipeKey, type SystemRecipe } from "./debian/debian-system.ts";
import { buildDebianMinimal, debianMinimalSources, recipeKey as debianKey } from "./debian/debian-minimal.ts";

interface Recipe {
  readonly description: string;
  key(): string;
  build(options: BuildOptions, out: string): Promise<Omit<BuiltBox, "fromCache">>;
  /** What a build of today would be made of, as {@link BuiltBox.sources}; absent: nothing from outside. */
  sources?(options: BuildOptions): Promise<Readonly<Record<string, string>>>;
}

function systemRecipe(recipe: SystemRecipe, description: string): Recipe {
  return {
    description,
    key: () => systemRecipeKey(recipe),
    build: (options, out) => buildDebianSystem(recipe, options, out),
    sources: (options) => debianSystemSources(recipe, options),
  };
}

/** Every box that can be built here. */
export const RECIPES: Readonly<Record<string, Recipe>> = {
  "debian/minimal": { description: "Debian 13 riscv64: stock kernel and static busybox", key: debianKey, build: buildDebianMinimal, sources: debianMinimalSources },
  "debian/13": systemRecipe(DEBIAN_13, "Debian 13 riscv64 with systemd, sshd, apt and sudo on a disk that grows"),
  "debian/docker": systemRecipe(DEBIAN_DOCKER, "debian/13 with Docker Engine"),
  tiny: { description: "a small program of our own; needs no download", key: tinyKey, build: buildTiny },
};

/**
 * Builds a box, or answers the built one from the cache: at once when the recipe has not changed.
 * Looks in `HV_BOX_CACHE` first, a cache directory that was filled elsewhere (it is only read).
 */
export async function buildBox(name: string, options: BuildOptions): Promise<BuiltBox> {
  const recipe = RECIPES[name];
  if (!recipe) throw new BoxBuildError(`there is no recipe "${name}"; there are: ${Object.keys(RECIPES).join(", ")}`);
  const env = options.env ?? process.env;
  const folder = `${name.replaceAll("/", "-")}-${recipe.key()}`;
  const imported = env["HV_BOX_CACHE"];
  if (imported) {
    const found = await readBuilt(join(imported, "boxes", folder), options);
    if (found) return found;
    options.log?.(`HV_BOX_CACHE (${imported}) has no boxes/${folder}; building it here`);
  }
  const boxes = join(options.cacheDir, "boxes");
  mkdirSync(boxes, { recursive: true });
  const out = join(boxes, folder);
  if (!options.refresh) {
    const found = await readBuilt(out, options);
    if (found) return found;
  }
  const unlock = await lock(join(boxes, `${folder}.lock`), options);
  try {
    if (!options.refresh) {
      const found = await readBuilt(out, options); // built by whoever held the lock
      if (found) return found;
    }
    const scratch = `${out}.new`;
    rmSync(scratch, { recursive: true, force: true });
    mkdirSync(scratch, { recursive: true });
    const built = await recipe.build(options, scratch);
    writeFileSync(join(scratch, "box.json"), toJson(built, scratch));
    rmSync(out, { recursive: true, force: true });
    renameSync(scratch, out);
    const result = await readBuilt(out, options);
    if (!result) throw new BoxBuildError(`${out} is damaged right after it was built; is the disk full?`);
    return { ...result, fromCache: false };
  } finally {
    unlock();
  }
}

/** What a build of today would have newer than the built one: "package version"; all of it when there is none. */
export async function recipeNews(name: string, options: BuildOptions): Promise<string[]> {
  const recipe = RECIPES[name];
  if (!recipe) throw new BoxBuildError(`there is no recipe "${name}"`);
  const folder = join(options.cacheDir, "boxes", `${name.replaceAll("/", "-")}-${recipe.key()}`);
  const built = await readBuilt(folder, options);
  if (!built) return [`the recipe of ${name} has changed`];
  const now = (await recipe.sources?.(options)) ?? {};
  return Object.entries(now).filter(([source, version]) => built.sources[source] !== version).map(([source, version]) => `${source} ${version.split(" ")[0]}`);
}

/** box.json names files by their place beside it, so that a cache directory can be moved. */
function toJson(built: Omit<BuiltBox, "fromCache">, folder: string): string {
  return JSON.stringify(built, (key, value) => (typeof value === "bigint" ? `${value}n` : key === "path" ? relative(folder, value) : value), 2);
}

/** The box in `folder`, its files' sizes and digests checked; undefined if there is none or it is damaged. */
async function readBuilt(folder: string, options: BuildOptions): Promise<BuiltBox | undefined> {
  const path = join(folder, "box.json");
  if (!existsSync(path)) return undefined;
  try {
    const built = JSON.parse(readFileSync(path, "utf8"), (key, value) => {
      if (typeof value === "string" && /^\d+n$/.test(value)) return BigInt(value.slice(0, -1));
      return key === "path" && !isAbsolute(value) ? join(folder, value) : value;
    }) as BuiltBox;
    for (const file of [built.kernel, built.kernel.packed, built.initrd, built.initrd?.packed, built.disk]) if (file) checkFile(file);
    return { ...built, fromCache: true };
  } catch (error) {
    options.log?.(`${folder} is not usable (${(error as Error).message}); it will be built again`);
    return undefined;
  }
}

function checkFile(file: BuiltFile): void {
  const bytes = statSync(file.path).size;
  if (bytes !== file.bytes) throw new Error(`${file.path} has ${bytes} bytes, expected ${file.bytes}`);
  // Large files are checked by the image registry when they are stored; the small ones here.
  if (bytes > 64 * 1024 * 1024) return;
  const got = createHash("sha256").update(readFileSync(file.path)).digest("hex");
  if (got !== file.sha256) throw new Error(`${file.path} has sha256 ${got}, expected ${file.sha256}`);
}

/** Two builds at once: the second waits. A lock whose owner is gone is taken over. */
async function lock(path: string, options: BuildOptions): Promise<() => void> {
  for (let told = false; ; ) {
    try {
      const fd = openSync(path, "wx");
      writeSync(fd, String(process.pid));
      closeSync(fd);
      return () => rmSync(path, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const owner = existsSync(path) ? Number(readFileSync(path, "utf8")) : 0;
    if (owner > 0 && !alive(owner)) {
      rmSync(path, { force: true });
      continue;
    }
    if (!told) options.log?.(`process ${owner} is building the same box; waiting for it`);
    told = true;
    await sleep(200);
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
