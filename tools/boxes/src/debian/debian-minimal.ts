import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import xz from "xz-decompress"; // CommonJS: no named exports
import { readTar } from "../archive/tar.ts";
import { findDebianMirror } from "../apt/debian-mirror.ts";
import { packageFiles, PrivateApt, run, sha256OfFile, type AptPackage } from "../apt/private-apt.ts";
import { BoxBuildError, writeResult, type BuildOptions, type BuiltBox, type BuiltFile } from "../built-box.ts";
import { canonicalName, moduleTree, type ModulePackage } from "../modules/module-tree.ts";
import { findMke2fs, makeExt4 } from "./ext4-image.ts";
import { GUEST_MODULES, SOFT_ALIASES } from "./guest-modules.ts";
import { guestFiles, initramfs } from "./initramfs.ts";

const SUITE = "trixie";
const DEBIAN_VERSION = "13";
const ARCHITECTURE = "riscv64";
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

/** Debian 13's stock riscv64 kernel, static busybox, and the modules that a virtio machine needs. */
export async function buildDebianMinimal(options: BuildOptions, out: string): Promise<Omit<BuiltBox, "fromCache">> {
  const env = { ...(options.env ?? process.env) } as NodeJS.ProcessEnv;
  const log = options.log ?? (() => {});
  const progress = options.onProgress ?? (() => {});
  const mirror = findDebianMirror(env);
  log(`packages of ${SUITE}/${ARCHITECTURE} from the mirror in ${mirror.namedBy}`);
  const apt = new PrivateApt({ dir: join(options.cacheDir, "apt", `${SUITE}-${ARCHITECTURE}`), mirror, suite: SUITE, architecture: ARCHITECTURE, env });

  progress({ step: "package lists" });
  await apt.update(log);
  // linux-image-riscv64 is a name for the current kernel: its dependency is the package that holds it.
  const kernelName = (await apt.depends("linux-image-riscv64")).map((d) => d.split(" ")[0] as string).find((d) => d.startsWith("linux-image-"));
  if (!kernelName) throw new BoxBuildError("linux-image-riscv64 depends on no linux-image-<version>: the mirror's lists are not what this recipe expects");
  const packages = await apt.describe([kernelName, "busybox-static"]);
  const files: string[] = [];
  for (const p of packages) {
    progress({ step: `download ${p.name}`, doneBytes: 0, totalBytes: p.bytes });
    files.push(await apt.fetch(p, (doneBytes) => progress({ step: `download ${p.name}`, doneBytes, totalBytes: p.bytes })));
  }
  const [kernelDeb, busyboxDeb] = files as [string, string];

  progress({ step: "unpack kernel" });
  const kernel = await readKernelPackage(kernelDeb);
  progress({ step: "unpack busybox" });
  const busybox = await readOneFile(busyboxDeb, /^(usr\/)?bin\/busybox$/);

  progress({ step: "initramfs" });
  const modules = await moduleTree(GUEST_MODULES, kernel.modules, SOFT_ALIASES);
  if (modules.missing.length > 0) throw new BoxBuildError(`${kernelName} has no module ${modules.missing.join(", ")}; the recipe's list (guest-modules.ts) no longer fits it`);
  const kernelFile = writeResult(join(out, "Image"), kernel.image);
  const initrdFile = writeResult(join(out, "initrd.cpio"), initramfs({ busybox, release: kernel.release, modules, debianVersion: DEBIAN_VERSION }));

  progress({ step: "disk" });
  const disk = await makeDisk(options, env, out, log);
  const source = (p: AptPackage): [string, string] => [p.name, `${p.version} sha256:${p.sha256}`];
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
    sources: Object.fromEntries(packages.map(source)),
  };
}

/** The raw Image, and the modules kept as they are packed (unpacking all 3,000 would take minutes). */
async function readKernelPackage(deb: string): Promise<{ image: Uint8Array; release: string; modules: ModulePackage }> {
  const packed = new Map<string, Uint8Array>();
  const paths = new Map<string, string>();
  const builtin = new Set<string>();
  let image: Uint8Array | undefined;
  let release = "";
  const wanted = (path: string): boolean => path.startsWith("boot/vmlinu") || /^(usr\/)?lib\/modules\/.*(\.ko(\.\w+)?|modules\.builtin)$/.test(path);
  await packageFiles(deb, (tar) =>
    readTar(tar, wanted, (path, data) => {
      if (path.startsWith("boot/")) {
        image = data;
        release = path.replace(/^boot\/vmlinu[xz]-/, "");
        return;
      }
      const inTree = path.replace(/^(usr\/)?lib\/modules\/[^/]+\//, "");
      if (inTree === "modules.builtin") {
        for (const line of new TextDecoder().decode(data).split("\n")) if (line) builtin.add(moduleName(line));
      } else {
        packed.set(inTree, data);
        paths.set(moduleName(inTree), inTree);
      }
    }),
  );
  if (!image) throw new BoxBuildError(`${deb} holds no boot/vmlinux-*: the package is not the kernel this recipe expects`);
  // RISC-V boot image header: magic2 "RSC\x05" at 0x38 (kernel Documentation/arch/riscv/boot-image-header.rst).
  if (new TextDecoder("latin1").decode(image.subarray(0x38, 0x3c)) !== "RSC\x05") {
    throw new BoxBuildError(`boot/vmlinux-${release} is not a raw RISC-V Image (its header lacks "RSC\\x05")`);
  }
  const read = async (path: string): Promise<Uint8Array> => {
    const data = packed.get(path) as Uint8Array;
    return path.endsWith(".xz") ? unxz(data) : data;
  };
  return { image, release, modules: { paths, builtin, read } };
}

const moduleName = (path: string): string => canonicalName((path.split("/").at(-1) as string).replace(/\.ko(\.\w+)?$/, ""));

async function unxz(data: Uint8Array): Promise<Uint8Array> {
  const stream = new xz.XzReadableStream(new Blob([data as Uint8Array<ArrayBuffer>]).stream());
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function readOneFile(deb: string, path: RegExp): Promise<Uint8Array> {
  let found: Uint8Array | undefined;
  await packageFiles(deb, (tar) => readTar(tar, (p) => path.test(p), (_p, data) => void (found = data)));
  if (!found) throw new BoxBuildError(`${deb} holds no file ${path}`);
  return found;
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
