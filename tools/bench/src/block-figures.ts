/**
 * Block I/O from inside a guest, beside the same guest on QEMU's virtio-blk with qcow2: sequential, random 4 KiB, durable
 * writes; on chains of several layers.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { assemble } from "@polyvisor/isa";

/** Runs a shell command line in a guest; answers what it printed. */
export type GuestShell = (command: string) => Promise<string>;

const MIB = 192;
const PASSES = 3;
/** Of so many tries the best counts: who else uses the machine can only make one slower. */
const TRIES = 3;
/** {@link MIB} of the box's 256 MiB disk. */
const BLOCKS = MIB * 256;
const OPERATIONS = {
  "4 KiB random write": { operation: 68, sync: 0, count: 4000 },
  "4 KiB random read": { operation: 67, sync: 0, count: 4000 },
  "4 KiB durable write": { operation: 68, sync: 1, count: 600 },
} as const;
/** Writes and reads before the clock starts: a translator learns the guest's block layer meanwhile, QEMU's and ours. */
const WARM_UP = 12_000;
const TMPFS_MIB = 40;
/** Writes all that is read later. */
export const FILL = `dd if=/dev/zero of=/dev/vda bs=1M count=${MIB} oflag=direct conv=fsync`;
const READS = ["sequential read (MB/s)", "4 KiB random read (/s)"] as const;

/**
 * All figures of one disk, or with `only: "reads"` those that a chain of layers could slow. Both systems' disks lie on the host's
 * page cache (QEMU: cache=writeback, its default), O_DIRECT in the guest, one request at a time, flushes reach the host's disk.
 * `share`: of the operations, for who is slow.
 */
export async function blockFigures(shell: GuestShell, { only, share = 1 }: { only?: "reads"; share?: number } = {}): Promise<Map<string, number>> {
  const figures = new Map<string, number>();
  const timed = async (command: string): Promise<number> => {
    const output = await shell(`for try in $(seq ${TRIES}); do time ${command}; done`);
    const took = [...output.matchAll(/real\s+(\d+)m\s*([\d.]+)s/g)].map(([, minutes, seconds]) => Number(minutes) * 60 + Number(seconds)); // busybox: "real  0m 0.53s"
    if (took.length !== TRIES) throw new Error(`${command} said: ${output}`);
    return Math.min(...took);
  };
  const passes = async (count: number, command: string): Promise<number> => (PASSES * count) / (await timed(`sh -c 'for i in $(seq ${PASSES}); do ${command}; done'`));
  const dd = (how: string): Promise<number> => passes(MIB, `dd bs=1M count=${MIB} ${how}`);
  const random = async ({ operation, sync, count: all }: { operation: number; sync: number; count: number }): Promise<number> => {
    const count = Math.ceil(all * share);
    const program = randomIo(operation, sync, count).toString("base64");
    await shell(`echo ${program} | base64 -d > /tmp/io && chmod +x /tmp/io`);
    return count / (await timed("/tmp/io"));
  };
  // Written first, so that there is something to read everywhere, below all other layers.
  if (!only) await shell(FILL);
  for (const operation of only ? [67] : [68, 67]) await random({ operation, sync: 0, count: WARM_UP / TRIES });
  if (!only) {
    figures.set("sequential write (MB/s)", await dd("if=/dev/zero of=/dev/vda oflag=direct conv=fsync"));
    await shell(`dd bs=1M count=${TMPFS_MIB} if=/dev/zero of=/tmp/f`);
    figures.set("for comparison, no device: 4 KiB reads of tmpfs (/s)", await passes(TMPFS_MIB * 256, "dd bs=4k if=/tmp/f of=/dev/null"));
    await shell("rm /tmp/f");
  }
  figures.set(READS[0], await dd("if=/dev/vda of=/dev/null iflag=direct"));
  for (const [name, operation] of Object.entries(OPERATIONS)) if (!only || operation.operation === 67) figures.set(`${name} (/s)`, await random(operation));
  return figures;
}

/** Makes a qcow2 file that stands on `depth - 1` others, each with a little of its own; the lowest, on a raw one, is full. */
export function qcow2Chain(directory: string, base: string, depth: number): string {
  let below = base;
  for (let layer = 0; layer < depth; layer++) {
    const path = join(directory, `chain-${depth}-${layer}.qcow2`);
    execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", "-b", below, "-F", layer === 0 ? "raw" : "qcow2", path]);
    if (layer === 0) execFileSync("qemu-io", ["-f", "qcow2", "-c", `write -q -P 255 0 ${MIB}M`, path]);
    if (layer < depth - 1) execFileSync("qemu-io", ["-f", "qcow2", "-c", `write -q -P ${layer + 1} ${layer * 9}M 4M`, path]);
    below = path;
  }
  return below;
}

/** What writes a layer's own 4 MiB in a guest, as {@link qcow2Chain} does on the host. */
export const writeLayer = (layer: number): string => `dd if=/dev/urandom of=/dev/vda bs=1M seek=${layer * 9} count=4 conv=notrunc 2>/dev/null; sync`;

export function randomIo(operation: number, sync: number, count: number): Buffer {
  const values: Readonly<Record<string, number>> = { COUNT: count, BLOCKS, OPERATION: operation, SYNC: sync };
  const source = readFileSync(new URL("./programs/random-io.s", import.meta.url), "utf8").replaceAll(/\b(COUNT|BLOCKS|OPERATION|SYNC)\b(?=[^#\n]*$)/gm, (name) => String(values[name]));
  return elf(assemble(source, { base: BigInt(LOAD + HEADERS) }).bytes);
}

const LOAD = 0x10000;
const HEADERS = 64 + 56;

/** A static ELF64 program for riscv (System V ABI): one segment with headers, code, and memory up to 0x30000. */
function elf(code: Uint8Array): Buffer {
  const file = Buffer.alloc(HEADERS + code.length);
  file.write("\x7fELF\x02\x01\x01", 0, "latin1");
  file.writeUInt16LE(2, 16); // ET_EXEC
  file.writeUInt16LE(243, 18); // EM_RISCV
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(LOAD + HEADERS), 24); // e_entry
  file.writeBigUInt64LE(64n, 32); // e_phoff
  file.writeUInt32LE(4, 48); // EF_RISCV_FLOAT_ABI_DOUBLE
  for (const [at, value] of [[52, 64], [54, 56], [56, 1], [58, 64]] as const) file.writeUInt16LE(value, at);
  file.writeUInt32LE(1, 64); // PT_LOAD
  file.writeUInt32LE(7, 68); // RWX
  for (const [at, value] of [[80, LOAD], [88, LOAD], [96, file.length], [104, 0x20000], [112, 0x1000]] as const) file.writeBigUInt64LE(BigInt(value), at);
  file.set(code, HEADERS);
  return file;
}
