import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findDebianMirror } from "../apt/debian-mirror.ts";
import { PrivateApt, run, sha256OfFile, type AptPackage } from "../apt/private-apt.ts";
import { BoxBuildError, writeResult, type BuildOptions, type BuiltBox, type BuiltFile } from "../built-box.ts";
import { moduleTree } from "../modules/module-tree.ts";
import { DEBIAN_VERSION, openDebian, sourcesOf, SUITE } from "./debian-archive.ts";
import { findMke2fs, makeExt4 } from "./ext4-image.ts";
import { GUEST_MODULES, SOFT_ALIASES } from "./guest-modules.ts";
import { guestFiles, initramfs } from "./initramfs.ts";
import { readKernelPackage, readOneFile } from "./kernel-package.ts";

const DISK_BYTES = 256 * 1024 * 1024;
const DISK_UUID = "b0c5a000-0000-4000-8000-000000000013";

/**
 * `cryptomgr.notests` saves 1.1 G instructions of self-tests (facts page); `quiet loglevel=4` keeps the serial port
 * for warnings and errors; `earlycon=sbi` shows a kernel that stops before it has a console.
 */
const BOOT_ARGUMENTS = "console=ttyS0 earlycon=sbi cryptomgr.notests quiet loglevel=4 hv.agent=hvc0";

/** Whatever changes the result: the recipe's own inputs. Package versions are pinned by the built box itself. */
export function recipeKey(): string {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([1, SUITE, GUEST_MODULES, SOFT_ALIASES, DISK_BYTES, DISK_UUID, BOOT_ARGUMENTS]));
  for (const entry of guestFiles()) hash.update(entry.path).update(entry.kind === "file" ? entry.data : "");
  return hash.digest("hex").slice(0, 16);
}

/** What today's lists have of this box's packages. */
export async function debianMinimalSources(options: BuildOptions): Promise<Record<string, string>> {
  const { apt, kernelName } = await openDebian(options);
  return sourcesOf(await apt.describe([kernelName, "busybox-static"]));
}

/** Debian 13's stock riscv64 kernel, static busybox, and the modules that a virtio machine needs. */
export async function buildDebianMinimal(options: BuildOptions, out: string): Promise<Omit<BuiltBox, "fromCache">> {
  const debian = await openDebian(options);
  const { env, log, progress } = debian;
  const packages = await debian.apt.describe([debian.kernelName, "busybox-static"]);
  const [kernelDeb, busyboxDeb] = (await debian.fetch(packages)) as [string, string];

  progress({ step: "unpack kernel" });
  const kernel = await readKernelPackage(kernelDeb);
  progress({ step: "unpack busybox" });
  const busybox = await readOneFile(busyboxDeb, /^(usr\/)?bin\/busybox$/);

  progress({ step: "initramfs" });
  const modules = await moduleTree(GUEST_MODULES, kernel.modules, SOFT_ALIASES);
  if (modules.missing.length > 0) throw new BoxBuildError(`${debian.kernelName} has no module ${modules.missing.join(", ")}; the recipe's list (guest-modules.ts) no longer fits it`);
  const kernelFile = writeResult(join(out, "Image"), kernel.image);
  const initrdFile = writeResult(join(out, "initrd.cpio"), initramfs({ busybox, release: kernel.release, modules, debianVersion: DEBIAN_VERSION }));

  progress({ step: "disk" });
  const disk = await makeDisk(options, env, out, log);
  return {
    name: "debian/minimal",
    tag: DEBIAN_VERSION,
    kernel: kernelFile,
    initrd: initrdFile,
    ...(disk ? { disk } : {}),
    config: {
      bootArguments: BOOT_ARGUMENTS,
      memoryBytes: 256n * 1024n * 1024n,
      harts: 1,
      diskBytes: BigInt(DISK_BYTES),
      agentConsole: "hvc0",
      description: `Debian ${DEBIAN_VERSION} riscv64: stock kernel ${kernel.release}, static busybox`,
    },
    sources: sourcesOf(packages),
  };
}

async function makeDisk(options: BuildOptions, env: NodeJS.ProcessEnv, out: string, log: (line: string) => void): Promise<BuiltFile | undefined> {
  const mke2fs = findMke2fs(env) ?? (await fetchMke2fs(options, env, log));
  if (!mke2fs) {
    log("no mke2fs here: the box has no formatted disk (machines get an empty one; install e2fsprogs to change that)");
    return undefined;
  }
  const path = join(out, "disk.ext4");
  await makeExt4(mke2fs, { path, bytes: DISK_BYTES, label: "hv-data", uuid: DISK_UUID, env });
  return { path, bytes: DISK_BYTES, sha256: await sha256OfFile(path) };
}

/** mke2fs out of this machine's own e2fsprogs package, through the machine's own apt lists; undefined if it cannot run. */
async function fetchMke2fs(options: BuildOptions, env: NodeJS.ProcessEnv, log: (line: string) => void): Promise<string | undefined> {
  const machine = { x64: "amd64", arm64: "arm64", riscv64: "riscv64" }[process.arch as string];
  if (!machine) return undefined;
  const folder = join(options.cacheDir, "tools", machine);
  const path = join(folder, "mke2fs");
  try {
    if (!existsSync(path)) {
      const mirror = findDebianMirror(env);
      const apt = new PrivateApt({ dir: join(options.cacheDir, "apt", `${SUITE}-${machine}`), mirror, suite: SUITE, architecture: machine, env });
      await apt.update(log);
      const [p] = await apt.describe(["e2fsprogs"]);
      const deb = await apt.fetch(p as AptPackage, () => {});
      mkdirSync(folder, { recursive: true });
      writeFileSync(path, await readOneFile(deb, /sbin\/mke2fs$/));
      chmodSync(path, 0o755);
    }
    await run(path, ["-V"], { env });
    return path;
  } catch (error) {
    rmSync(path, { force: true });
    log(`e2fsprogs could not be fetched: ${(error as Error).message}`);
    return undefined;
  }
}
