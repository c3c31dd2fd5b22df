import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { promisify } from "node:util";
import type { DiskImage, ImagePort } from "@polyvisor/contracts/image";
import { CliError, UsageError } from "./cli-error.ts";
import { importImage, sizeOf } from "./file-streams.ts";

const run = promisify(execFile);

/** By the file's name only: content is never probed, a guest writes it. */
const BY_EXTENSION: Readonly<Record<string, string>> = {
  ".raw": "raw", ".img": "raw", ".ext4": "raw", ".iso": "raw", ".qcow2": "qcow2", ".vmdk": "vmdk", ".vdi": "vdi", ".vhdx": "vhdx", ".vpc": "vpc", ".vhd": "vpc",
};
const OURS = ["raw", "qcow2"];

export function formatOf(path: string, given: string | undefined): string {
  const format = given ?? BY_EXTENSION[extname(path).toLowerCase()];
  if (format) return format;
  throw new UsageError(`what is ${path}? Its name does not say; give --format raw, qcow2, vmdk or vdi`);
}

/** A disk file of any format: ours directly, others through qemu-img where it is installed. */
export async function importDiskFile(images: ImagePort, path: string, format: string): Promise<DiskImage> {
  await sizeOf(path);
  if (OURS.includes(format)) return importImage(images, path, format);
  const directory = await mkdtemp(join(tmpdir(), "hv-disk-"));
  try {
    const converted = join(directory, "disk.qcow2");
    await run("qemu-img", ["convert", "-f", format, "-O", "qcow2", path, converted]).catch((error: NodeJS.ErrnoException & { stderr?: string }) => {
      if (error.code === "ENOENT") throw new CliError(`reading ${format} needs qemu-img, which is not installed (Debian: apt-get install qemu-utils)`);
      throw new CliError(`qemu-img cannot read ${path} as ${format}: ${(error.stderr ?? error.message).trim()}`);
    });
    return await importImage(images, converted, "qcow2");
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
