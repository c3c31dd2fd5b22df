import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { sha256OfFile } from "../apt/private-apt.ts";
import { BoxBuildError, writeResult, type BuildOptions, type BuiltBox } from "../built-box.ts";
import { unpackPackage, type UnpackedPackage } from "../dpkg/package.ts";
import { writeDpkgDatabase } from "../dpkg/database.ts";
import { GROUP_BYTES } from "../ext4/geometry.ts";
import { writeExt4 } from "../ext4/write-ext4.ts";
import { installModules } from "../modules/install-modules.ts";
import { moduleTree } from "../modules/module-tree.ts";
import { packFile } from "../pack-file.ts";
import { FileTree } from "../rootfs/file-tree.ts";
import { ARCHITECTURE, DEBIAN_VERSION, openDebian, sourcesOf, SUITE } from "./debian-archive.ts";
import { SOFT_ALIASES } from "./guest-modules.ts";
import { filesOf, readKernelPackage, readOneFile } from "./kernel-package.ts";
import { configureSystem, systemAccounts } from "./system/configure.ts";
import { bootFiles, guestFileTexts } from "./system/guest-files.ts";
import { fromKlibc, INITRAMFS_PACKAGES, KLIBC_FILES, systemInitramfs } from "./system/initramfs.ts";
import { DISK_MODULES, isExcluded, PATH_EXCLUDES, PATH_INCLUDES, ROOT_MODULES, SYSTEM_PACKAGES } from "./system/package-set.ts";

const MIB = 1024 * 1024;
const DISK_UUID = "b0c5a000-0000-4000-8000-0000000013d0";
const JOURNAL_BYTES = 8 * MIB;
const INODES_PER_GROUP = 8192;
const MACHINE_DISK_BYTES = 4096 * MIB;

/** As debian/minimal's; names of interfaces stay eth0, eth1; nothing scans the disk for partitions to mount. */
const BOOT_ARGUMENTS = "console=ttyS0 earlycon=sbi cryptomgr.notests quiet loglevel=4 net.ifnames=0 hv.agent=hvc0";

/** A box with Debian's own init and package manager; `packages` are added to the common set. */
export interface SystemRecipe {
  readonly name: string;
  readonly description: string;
  readonly packages: readonly string[];
  readonly units: readonly string[];
  readonly userGroups: readonly string[];
  readonly memoryBytes: number;
  /** Free room on the base image; the machine's disk is larger and the filesystem grows to it. */
  readonly freeBytes: number;
}

export const DEBIAN_13: SystemRecipe = { name: "debian/13", description: "systemd, sshd, apt, sudo", packages: [], units: [], userGroups: [], memoryBytes: 512 * MIB, freeBytes: 64 * MIB };

/** Started by its socket, at the first `docker` command: a gigabyte of instructions that a boot need not wait for. */
export const DEBIAN_DOCKER: SystemRecipe = {
  name: "debian/docker",
  description: "Docker Engine on systemd, sshd, apt, sudo",
  packages: ["docker.io", "docker-cli", "containerd", "runc", "iptables"],
  units: ["docker.socket"],
  userGroups: ["docker"],
  memoryBytes: 1024 * MIB,
  freeBytes: 128 * MIB,
};

/** The code that makes the disk is a part of the recipe: what it does differs, the box differs. */
function recipeCode(): string[] {
  const folders = ["configure", "debian", "dpkg", "ext4", "modules", "rootfs"].map((name) => new URL(`../${name}/`, import.meta.url));
  return folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => /(?<!\.spec|\.e2e)\.ts$/.test(name)).sort().map((name) => readFileSync(new URL(name, folder), "utf8")),
  );
}

export function systemRecipeKey(recipe: SystemRecipe): string {
  const inputs = [recipeCode(), recipe, SUITE, SYSTEM_PACKAGES, DISK_MODULES, SOFT_ALIASES, PATH_EXCLUDES, PATH_INCLUDES, BOOT_ARGUMENTS, guestFileTexts()];
  return createHash("sha256").update(JSON.stringify(inputs)).digest("hex").slice(0, 16);
}

/** What today's lists have of this box's packages. */
export async function debianSystemSources(recipe: SystemRecipe, options: BuildOptions): Promise<Record<string, string>> {
  const { apt, kernelName } = await openDebian(options);
  return sourcesOf(await apt.describe([kernelName, ...INITRAMFS_PACKAGES, ...(await apt.closure([...SYSTEM_PACKAGES, ...recipe.packages]))]));
}

export async function buildDebianSystem(recipe: SystemRecipe, options: BuildOptions, out: string): Promise<Omit<BuiltBox, "fromCache">> {
  const debian = await openDebian(options);
  const { log, progress } = debian;
  const names = await debian.apt.closure([...SYSTEM_PACKAGES, ...recipe.packages]);
  const system = await debian.apt.describe(names);
  const boot = await debian.apt.describe([debian.kernelName, ...INITRAMFS_PACKAGES]);
  const files = await debian.fetch([...boot, ...system]);
  const [kernelDeb, klibcDeb, klibcUtilsDeb, ...systemDebs] = files as [string, string, string, ...string[]];

  progress({ step: "unpack kernel" });
  const kernel = await readKernelPackage(kernelDeb);
  const klibc = new Map([...(await filesOf(klibcDeb, fromKlibc)), ...(await filesOf(klibcUtilsDeb, fromKlibc))]);
  if (klibc.size !== KLIBC_FILES) throw new BoxBuildError(`klibc's packages hold ${[...klibc.keys()].join(", ")}; the initial RAM disk (system/initramfs.ts) needs ${KLIBC_FILES} files of them`);
  const rootModules = await moduleTree(ROOT_MODULES, kernel.modules, SOFT_ALIASES);
  if (rootModules.missing.length > 0) throw new BoxBuildError(`${debian.kernelName} has no module ${rootModules.missing.join(", ")}; the recipe's list (package-set.ts) no longer fits it`);
  const kernelFile = writeResult(join(out, "Image"), kernel.image);
  const initrdFile = writeResult(join(out, "initrd.cpio"), systemInitramfs({ klibc, release: kernel.release, modules: rootModules }));
  const packing = Promise.all([packFile(kernelFile), packFile(initrdFile)]);
  packing.catch(() => {}); // awaited when the disk is there

  const tree = new FileTree();
  const deb = (name: string): string => systemDebs[system.findIndex((p) => p.name === name)] as string;
  const master = async (file: string): Promise<string> => new TextDecoder().decode(await readOneFile(deb("base-passwd"), new RegExp(`/${file}\\.master$`)));
  const accounts = systemAccounts(await master("passwd"), await master("group"));
  const unpacked: UnpackedPackage[] = [];
  progress({ step: `unpack ${system.length} packages` });
  // base-files first: it says what the common directories look like.
  for (const p of system.toSorted((a, b) => Number(b.name === "base-files") - Number(a.name === "base-files") || (a.name < b.name ? -1 : 1))) {
    unpacked.push(await unpackPackage(deb(p.name), tree, { owners: accounts.owners, excluded: isExcluded }));
  }
  const time = tree.newest();
  tree.mtime = time;
  progress({ step: "configure" });
  configureSystem(tree, accounts, { mirrorUri: debian.mirror.uri, suite: SUITE, time, units: recipe.units, userGroups: recipe.userGroups });
  writeDpkgDatabase(tree, unpacked, ARCHITECTURE);
  const modules = await moduleTree(DISK_MODULES, kernel.modules, SOFT_ALIASES);
  if (modules.missing.length > 0) log(`${debian.kernelName} has no module ${modules.missing.join(", ")}; left out`);
  installModules(tree, kernel.release, modules, kernel.modules.builtin);

  progress({ step: "disk" });
  const path = join(out, "disk.ext4");
  const bytes = Math.ceil((contentBytes(tree) + JOURNAL_BYTES + recipe.freeBytes) / GROUP_BYTES) * GROUP_BYTES;
  const identity = { uuid: Uint8Array.from(Buffer.from(DISK_UUID.replaceAll("-", ""), "hex")), label: "debian", time };
  writeExt4(tree.root, { path, bytes, inodesPerGroup: INODES_PER_GROUP, journalBytes: JOURNAL_BYTES, identity, first: bootFiles(tree) });
  const [packedKernel, packedInitrd] = await packing;
  return {
    name: recipe.name,
    tag: DEBIAN_VERSION,
    kernel: packedKernel,
    initrd: packedInitrd,
    disk: { path, bytes, sha256: await sha256OfFile(path) },
    config: {
      bootArguments: BOOT_ARGUMENTS,
      memoryBytes: BigInt(recipe.memoryBytes),
      harts: 1,
      diskBytes: BigInt(MACHINE_DISK_BYTES),
      agentConsole: "hvc0",
      description: `Debian ${DEBIAN_VERSION} riscv64: ${recipe.description}; stock kernel ${kernel.release}`,
    },
    sources: sourcesOf([...boot, ...system]),
  };
}

/** Whole blocks of all files, each once, and room for directories and inode tables. */
function contentBytes(tree: FileTree): number {
  let bytes = 0;
  const seen = new Set<unknown>();
  for (const [, node] of tree.walk()) {
    if (seen.has(node)) continue;
    seen.add(node);
    bytes += node.kind === "file" ? Math.ceil(node.data.length / 4096) * 4096 : node.kind === "directory" ? 4096 : 0;
  }
  return bytes + 8 * MIB;
}
