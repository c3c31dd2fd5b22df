import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const COMPILER = "riscv64-linux-gnu-gcc";
const FLAGS = [
  "-O2", "-march=rv64gc", "-mabi=lp64d", "-nostdlib", "-nostartfiles", "-static", "-s", "-ffreestanding",
  "-fno-tree-loop-distribute-patterns", "-fno-stack-protector", "-Wl,--build-id=none",
];

/** The programs of programs/compute.c, in its order. */
export const COMPUTE = ["sieve", "coremix", "calls", "memstr", "bytecode", "nbody"] as const;
export const SYSTEM = ["getppid", "chase", "memcpy", "fork+exec"] as const;

/** Why the suite cannot be built, or undefined. The assembled loop of bench.s is measured in any case. */
export function compilerMissing(): string | undefined {
  const { status, error } = spawnSync(COMPILER, ["--version"]);
  return status === 0 ? undefined : `${COMPILER} cannot be started (${error?.message ?? `status ${status}`}; Debian: apt-get install gcc-riscv64-linux-gnu)`;
}

/** Compiles a file of programs/ for a guest, without a C library. */
export function compileProgram(source: string, output: string, ...flags: string[]): string {
  const path = new URL(`./programs/${source}`, import.meta.url).pathname;
  const { status, stderr } = spawnSync(COMPILER, [...FLAGS, ...flags, "-o", output, path], { encoding: "utf8" });
  if (status !== 0) throw new Error(`${COMPILER} ${flags.join(" ")}: ${stderr}`);
  return output;
}

/** An M-mode image for the start of RAM. */
export function buildBareSuite(directory: string): string {
  const elf = compileProgram("compute.c", join(directory, "compute.elf"), "-DBARE", "-mcmodel=medany", "-Wl,-T", new URL("./programs/compute.ld", import.meta.url).pathname, "-Wl,--no-warn-rwx-segments");
  const image = join(directory, "compute.bin");
  const { status, stderr } = spawnSync("riscv64-linux-gnu-objcopy", ["-O", "binary", elf, image], { encoding: "utf8" });
  if (status !== 0) throw new Error(`objcopy: ${stderr}`);
  return image;
}

/** A guest's shell: runs a command line and answers what it printed. */
export type Shell = (command: string) => Promise<string>;

/** Puts the suite into a guest as /tmp/compute, and a text of some 8 MB as /tmp/text, in commands short enough for the agent. */
export async function installSuite(directory: string, shell: Shell): Promise<void> {
  const program = gzipSync(readFileSync(compileProgram("compute.c", join(directory, "compute")))).toString("base64");
  for (const part of program.match(/.{1,2400}/g)!) await shell(`echo ${part} >> /tmp/compute.b64`);
  const output = await shell("base64 -d < /tmp/compute.b64 | gunzip > /tmp/compute && chmod +x /tmp/compute && seq 1 1200000 > /tmp/text && echo installed");
  if (!output.includes("installed")) throw new Error(`the compute suite could not be put into the guest: ${output}`);
}

/** Seconds by program. */
export function parseSuite(output: string): Map<string, number> {
  return new Map([...output.matchAll(/^(\S+) ([0-9a-f]{16}) [0-9a-f]{16}\s*$/gm)].map(([, name, ticks]) => [name!, Number.parseInt(ticks!, 16) / 1e7]));
}

/** Runs everything in a guest, Debian's own gzip and sha256sum included. */
export async function runInGuest(shell: Shell): Promise<Map<string, number>> {
  const seconds = parseSuite(await shell("/tmp/compute"));
  for (const [name, command] of [["gzip", "sh -c 'gzip -c /tmp/text > /dev/null'"], ["sha256", "sha256sum /tmp/text"]] as const) {
    // busybox: "real  0m 0.53s"
    const output = await shell(`time ${command} 2>&1`);
    const [, minutes, rest] = /real\s+(\d+)m\s*([\d.]+)s/.exec(output) ?? [];
    if (rest === undefined) throw new Error(`time ${command} said: ${output}`);
    seconds.set(name, Number(minutes) * 60 + Number(rest));
  }
  return seconds;
}
