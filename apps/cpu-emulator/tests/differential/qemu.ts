import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { COMPRESSED_INSTRUCTIONS, INSTRUCTIONS } from "@polyvisor/isa";
import { KINDS, type PagingOptions } from "./paging-image.ts";
import { DONE, DONE_MARK, GUEST_TABLE_FAULTS, RAM, type RandomImage } from "./random-program.ts";

/** Debian 12 has QEMU 7.2; POLYVISOR_QEMU names a newer one, which knows more extensions. */
const QEMU = process.env["POLYVISOR_QEMU"] ?? "qemu-system-riscv64";

/** Since which QEMU our extensions can be compared, and the CPU properties that switch them on. */
const SINCE: readonly { readonly version: number; readonly extensions: readonly string[]; readonly properties: readonly string[] }[] = [
  { version: 7, extensions: ["Zbc", "Svinval"], properties: ["zbc", "svinval", "svnapot", "svpbmt", "h"] },
  { version: 10, extensions: ["Zicbom", "Zicboz", "Zicond", "Zcb", "Zfa"], properties: ["zicbom", "zicboz", "zicond", "zfa", "zca", "zcb", "zcd", "svadu"] },
];

const version = Number(/version (\d+)/.exec(spawnSync(QEMU, ["--version"], { encoding: "utf8" }).stdout ?? "")?.[1] ?? 0);
const known = SINCE.filter((row) => version >= row.version);
export const QEMU_CPU = ["rv64", ...known.flatMap(({ properties }) => properties.map((name) => `${name}=on`))].join(",");

const unknown: ReadonlySet<string> = new Set(SINCE.filter((row) => !known.includes(row)).flatMap(({ extensions }) => extensions));
/**
 * What cannot be compared: extensions that this QEMU lacks; ctzw of zero, which gives 63 before QEMU 8 (Zbb says 32);
 * faults of accesses to a guest's page tables, which QEMU 7.2 reports as loads or not at all;
 * the fences of Svinval, which QEMU lets U-mode execute; sc, which since QEMU 8 faults without a reservation too.
 */
export const QEMU_ERRATA: ReadonlySet<string> = new Set([
  ...(version < 8 ? ["ctzw", GUEST_TABLE_FAULTS] : ["sc.w", "sc.d"]), "sfence.w.inval", "sfence.inval.ir",
  ...[...INSTRUCTIONS, ...COMPRESSED_INSTRUCTIONS].filter(({ extension }) => unknown.has(extension)).map(({ name }) => name),
]);

/**
 * What of paging-image.ts can be compared: QEMU 7.2 does not look at reserved bits everywhere; HLVX faults as a fetch in QEMU (H: as a load), and QEMU 7.2 reports what goes
 * wrong with tables of the second stage as faults of loads, whatever it is.
 */
export const QEMU_PAGING: PagingOptions = {
  kinds: KINDS.filter((kind) => (version >= 8 ? kind !== "hlvx" : !kind.startsWith("h"))),
  sane: version < 8,
  // A page table outside memory is an access fault of the original access (section 11.3.2, step 2): through two stages QEMU
  // makes page and guest-page faults of them.
  tolerated: new Map([[20n, 1n], [21n, 5n], [23n, 7n], [13n, 5n], [15n, 7n]]),
};

/** Why the comparison cannot run here, or undefined. */
export function qemuMissing(): string | undefined {
  const { status, error } = spawnSync(QEMU, ["--version"], { encoding: "utf8" });
  return status === 0 ? undefined : `${QEMU} cannot be started (${error?.message ?? `status ${status}`})`;
}

/**
 * Runs an image on QEMU's `virt` machine without firmware and answers its result area: QMP
 * watches for the mark that the harness leaves, then pmemsave reads RAM.
 */
export async function runOnQemu(image: Pick<RandomImage, "bytes" | "resultOffset" | "resultBytes">, timeoutMs = 30_000): Promise<Uint8Array> {
  const directory = mkdtempSync(join(tmpdir(), "polyvisor-differential-"));
  const [imageFile, resultFile, socketFile] = ["image", "result", "qmp"].map((name) => join(directory, name)) as [string, string, string];
  writeFileSync(imageFile, image.bytes);
  const qemu = spawn(QEMU, [
    "-M", "virt", "-cpu", QEMU_CPU, "-m", "64", "-bios", "none", "-display", "none", "-serial", "none", "-monitor", "none", 
    "-device", `loader,file=${imageFile},addr=0x${RAM.toString(16)},force-raw=on`,
    "-qmp", `unix:${socketFile},server=on,wait=off`,
  ], { stdio: ["ignore", "ignore", "pipe"] });
  let errors = "";
  qemu.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const exited = new Promise<void>((resolve) => qemu.once("exit", () => resolve()));
  const deadline = setTimeout(() => qemu.kill("SIGKILL"), timeoutMs);
  try {
    const monitor = await connect(socketFile, qemu);
    await monitor.execute("qmp_capabilities");
    const mark = DONE_MARK.toString(16);
    while (!String(await monitor.execute("human-monitor-command", { "command-line": `xp /1wx 0x${DONE.toString(16)}` })).includes(mark)) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await monitor.execute("pmemsave", { val: RAM + image.resultOffset, size: image.resultBytes, filename: resultFile });
    await monitor.execute("quit").catch(() => undefined);
    await exited;
    return readFileSync(resultFile);
  } catch (cause) {
    throw new Error(`QEMU did not run the image: ${errors || String(cause)}`, { cause });
  } finally {
    clearTimeout(deadline);
    qemu.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  }
}

interface Monitor {
  execute(command: string, args?: object): Promise<unknown>;
}

/** The QEMU Machine Protocol: one JSON object per line. */
async function connect(path: string, qemu: { exitCode: number | null; signalCode: NodeJS.Signals | null }): Promise<Monitor> {
  for (;;) {
    if (qemu.exitCode !== null || qemu.signalCode !== null) throw new Error("QEMU ended at once");
    const socket = createConnection(path);
    const connected = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    if (!connected) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      continue;
    }
    const answers: { resolve(value: unknown): void; reject(error: Error): void }[] = [];
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString();
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) {
        const message = JSON.parse(line) as { return?: unknown; error?: { desc: string } };
        if (message.error) answers.shift()?.reject(new Error(message.error.desc));
        else if ("return" in message) answers.shift()?.resolve(message.return);
      }
    });
    let closed = false;
    const fail = (): void => {
      closed = true;
      for (const answer of answers.splice(0)) answer.reject(new Error("QEMU closed its monitor"));
    };
    socket.on("close", fail).on("error", fail);
    return {
      execute: (command, args) =>
        new Promise((resolve, reject) => {
          if (closed) return reject(new Error("QEMU closed its monitor"));
          answers.push({ resolve, reject });
          socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
        }),
    };
  }
}
