import { readFile, stat } from "node:fs/promises";
import { extname } from "node:path";
import { ContractError, messages } from "@polyvisor/contracts";
import { MachineSpec, type ForwardSpec, type Machine, type NicSpec, type OrchestratorPort, type StartProgress } from "@polyvisor/contracts/orchestrator";
import { Option, type Command } from "commander";
import { ensureBox } from "../boxes.ts";
import { addCommand, type Cli } from "../cli.ts";
import { UsageError } from "../cli-error.ts";
import { formatOf, importDiskFile } from "../disk-file.ts";
import { FORWARD_HELP, parseForward } from "../format/forward.ts";
import { NIC_HELP, parseNic } from "../format/nic.ts";
import { formatDuration, parseBytes, parseCount } from "../format/quantity.ts";
import { MACHINE_FILE_BYTES, parseMachineFile, type MachineFile, type MachineOptions } from "../format/machine-file.ts";
import { machineJson } from "../format/machine.ts";
import { TOPOLOGIES } from "../stack/home.ts";
import type { Stack } from "../stack/stacks.ts";
import { uploadFile } from "../upload-file.ts";
import { attachConsole } from "./console.ts";

export const DEFAULT_MACHINE = "default";
export const DEFAULT_BOX = "debian/minimal";

export interface UpOptions extends MachineOptions {
  file?: string;
  console?: boolean;
  json?: boolean;
}

export function addUpCommand(program: Command, cli: Cli): void {
  addCommand(program, "up [name]", `start a machine, making it first if there is none of that name ("${DEFAULT_MACHINE}")`, [
    ["hv up", "Debian 13 in one daemon"],
    ["hv up web --cpus 2 --memory 512M", "another machine, larger"],
    ["hv up web --topology processes", "six service processes and a NATS server"],
    ["hv up k --kernel Image --initrd i.cpio --append 'console=ttyS0'", "your own kernel"],
    ["hv up web --net nat --net internal:lan1,address=10.1.0.5/24", "two network interfaces"],
    ["hv up web --forward 8080:80", "the host's port 8080 leads to the guest's 80"],
    ["hv up -f web.json", 'a machine file: {"name": "web", "cpus": 2, "net": ["nat", "internal:lan1"], "forward": ["8080:80"]}'],
    ["hv up web --console", "and go to its console at once"],
  ])
    .option("-f, --file <path>", "machine file: a JSON object with these options by name (net and forward: lists); the command line wins")
    .option("--box <reference>", `box to boot (default: ${DEFAULT_BOX}, built when missing)`)
    .option("--kernel <file>", "kernel: a RISC-V Linux Image, an ELF file, or a raw image")
    .option("--initrd <file>", "initial RAM disk of the kernel")
    .option("--append <arguments>", "added to the kernel's command line")
    .option("--firmware <kind>", "builtin (SBI answered by the cpu-emulator), none (starts in M-mode), or a file such as OpenSBI's fw_jump.bin")
    .option("--disk <file>", "disk image, raw or qcow2 (vmdk, vdi where qemu-img is installed), as its name says; the machine writes to a copy")
    .addOption(topologyOption())
    .option("--engine <name>", "dynamic (default), static (begins with what hv translate made), interpreter, reference or recording")
    .option("--deterministic", "the same instructions and messages in every run: its time is its count of instructions, devices take none (one CPU; no network unless --net)")
    .option("--cpu <features>", "h=off: without the hypervisor extension; mmu=sv39, sv48 (default) or sv57: largest page tables; comma between them")
    .option("--cpus <n>", "number of harts, 1 to 8")
    .option("--memory <amount>", "RAM, e.g. 256M")
    .addOption(new Option("--lease <kind>", "how the harts get at RAM: coherent = every page by message, also where it could be shared").choices(["coherent"]))
    .option("--net <spec>", NIC_HELP, (text: string, all: NicSpec[] = []) => [...all, parseNic(text)])
    .option("--forward <spec>", FORWARD_HELP, (text: string, all: ForwardSpec[] = []) => [...all, parseForward(text)])
    .option("--no-network", "no network interface")
    .option("--console", "attach to the console afterwards")
    .action(async (name: string | undefined, options: UpOptions) => {
      const { name: inFile, ...described } = options.file === undefined ? {} : await readMachineFile(options.file);
      // commander says `network: true` where --no-network was not given
      const given = { ...options, network: options.network === false ? false : (described.network ?? true) };
      const { stack, machine } = await up(cli, name ?? inFile ?? DEFAULT_MACHINE, { ...described, ...given });
      cli.answer(options, machineJson(machine), () => readyText(cli, machine));
      if (options.console) await attachConsole(cli, stack, machine.spec!.name, {});
    });
}

export function topologyOption(): Option {
  return new Option("--topology <name>", "how the services run (default: embedded, or the one that has the machine)").choices(TOPOLOGIES);
}

async function readMachineFile(path: string): Promise<MachineFile> {
  let bytes: Buffer;
  try {
    const { size } = await stat(path);
    if (size > MACHINE_FILE_BYTES) throw new Error(`it has ${size} bytes; a machine file has at most ${MACHINE_FILE_BYTES}`);
    bytes = await readFile(path);
  } catch (error) {
    throw new UsageError(`machine file ${path}: ${(error as Error).message}`);
  }
  return parseMachineFile(bytes.toString(), path);
}

export async function up(cli: Cli, name: string, options: UpOptions): Promise<{ stack: Stack; machine: Machine }> {
  if (options.kernel && options.box) throw new UsageError("--box and --kernel exclude each other");
  if (options.initrd && !options.kernel) throw new UsageError("--initrd needs --kernel");
  const home = await cli.stacks.findMachine(name);
  if (home && options.topology && home !== options.topology) {
    throw new UsageError(`machine ${name} belongs to the ${home} stack; remove it there (hv destroy ${name}) or choose another name`);
  }
  const stack = await cli.stacks.ensure(home ?? options.topology ?? "embedded");
  if (!home || givesSpec(options)) await stack.orchestrator.createMachine({ spec: await specOf(cli, stack, name, options) });
  return { stack, machine: await startWithProgress(cli, stack.orchestrator, name) };
}

/** Does the command line say anything about what the machine is like? */
function givesSpec(options: UpOptions): boolean {
  const { box, kernel, append, firmware, disk, engine, deterministic, cpu, cpus, memory, lease, network, net, forward } = options;
  return network === false || [box, kernel, append, firmware, disk, engine, deterministic, cpu, cpus, memory, lease, net, forward].some((option) => option !== undefined);
}

async function specOf(cli: Cli, stack: Stack, name: string, options: UpOptions): Promise<MachineSpec> {
  const box = options.kernel ? "" : (options.box ?? DEFAULT_BOX);
  if (box) await ensureBox(cli, stack.images, box);
  const upload = (file: string | undefined): Promise<string> => (file ? uploadFile(stack.images, file) : Promise.resolve(""));
  const firmware = options.firmware ?? "";
  return MachineSpec.fromPartial({
    name,
    box,
    kernelDigest: await upload(options.kernel),
    initrdDigest: await upload(options.initrd),
    firmware: ["", "builtin", "none"].includes(firmware) ? firmware : await upload(firmware),
    bootArguments: options.append ?? "",
    ...(await diskFields(stack, options.disk)),
    harts: options.cpus === undefined ? 0 : parseCount(options.cpus, "--cpus", 1, 8),
    memoryBytes: options.memory === undefined ? 0n : parseBytes(options.memory),
    engine: options.engine ?? "",
    deterministic: options.deterministic ?? false,
    cpu: options.cpu ?? "",
    lease: options.lease ?? "",
    noNetwork: !options.network,
    nics: options.net ?? [],
    forwards: options.forward ?? [],
  });
}

/** A raw image goes into the registry as it is; others become chunked images. */
async function diskFields(stack: Stack, path: string | undefined): Promise<Partial<MachineSpec>> {
  if (!path) return {};
  const format = extname(path) === "" ? "raw" : formatOf(path, undefined);
  if (format === "raw") return { diskDigest: await uploadFile(stack.images, path) };
  const image = await importDiskFile(stack.images, path, format);
  return { diskDigest: image.digest, diskMediaType: image.mediaType, diskBytes: image.diskBytes };
}

/** Starts a machine and shows each stage as it begins. Answers the machine once it is ready. */
export async function startWithProgress(
  cli: Cli,
  orchestrator: OrchestratorPort,
  name: string,
  onProgress: (progress: StartProgress) => void = () => {},
): Promise<Machine> {
  let machine: Machine | undefined;
  for await (const progress of messages(orchestrator.startMachine({ name }))) {
    const time = formatDuration(Number(progress.elapsedMs)).padStart(8);
    cli.note(`${cli.color.dim(time)}  ${progress.stage.padEnd(8)} ${progress.detail}`);
    onProgress(progress);
    if (progress.done) machine = progress.machine;
  }
  if (!machine) throw new ContractError("unavailable", `start ${name}: the orchestrator went away; look at hv stack logs, then: hv up ${name}`);
  return machine;
}

function readyText(cli: Cli, machine: Machine): string {
  const { name } = machine.spec!;
  const next = machine.agentReady ? `hv exec ${name} -- uname -a, or hv console ${name}` : `hv console ${name}`;
  return `${cli.color.green("✓")} ${cli.color.bold(name)} runs (${machine.spec!.topology}); try: ${next}`;
}
