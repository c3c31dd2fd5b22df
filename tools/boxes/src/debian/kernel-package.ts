import { packageFiles } from "../apt/private-apt.ts";
import xz from "xz-decompress"; // CommonJS: no named exports
import { readFiles } from "../archive/tar.ts";
import { BoxBuildError } from "../built-box.ts";
import { canonicalName, type ModulePackage } from "../modules/module-tree.ts";

export interface KernelPackage {
  readonly image: Uint8Array;
  /** e.g. "6.12.107+deb13-riscv64" */
  readonly release: string;
  readonly modules: ModulePackage;
}

/** The raw Image, and the modules kept as they are packed (unpacking all 3,000 would take minutes). */
export async function readKernelPackage(deb: string): Promise<KernelPackage> {
  const packed = new Map<string, Uint8Array>();
  const paths = new Map<string, string>();
  const builtin = new Set<string>();
  let image: Uint8Array | undefined;
  let release = "";
  const wanted = (path: string): boolean => path.startsWith("boot/vmlinu") || /^(usr\/)?lib\/modules\/.*(\.ko(\.\w+)?|modules\.builtin)$/.test(path);
  await packageFiles(deb, (tar) =>
    readFiles(tar, wanted, (path, data) => {
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

/** The one file of a package whose path fits. */
export async function readOneFile(deb: string, path: RegExp): Promise<Uint8Array> {
  const [found] = (await filesOf(deb, (each) => path.test(each))).values();
  if (!found) throw new BoxBuildError(`${deb} holds no file ${path}`);
  return found;
}

/** Those regular files of a package that are wanted, by path. */
export async function filesOf(deb: string, wanted: (path: string) => boolean): Promise<Map<string, Uint8Array>> {
  const found = new Map<string, Uint8Array>();
  await packageFiles(deb, (tar) => readFiles(tar, wanted, (path, data) => void found.set(path, data)));
  return found;
}
