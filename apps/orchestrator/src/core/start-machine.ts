import { asContractError, ContractError, messages } from "@polyvisor/contracts";
import { Disk, type Box } from "@polyvisor/contracts/image";
import { LeaseKind } from "@polyvisor/contracts/memory";
import type { MachineSpec } from "@polyvisor/contracts/orchestrator";
import { holderReserveBytes } from "@polyvisor/machine";
import type { Clock } from "@polyvisor/service-kit";
import { type BlobFile, type BootPlan, diskId, planBoot } from "./boot-plan.ts";
import { inspectKernel } from "./kernel-file.ts";
import { LiveMachine } from "./live-machine.ts";
import type { MachineDisk } from "./machine-store.ts";
import { checkAddressesFree, createPorts, findNetworks, planNics, publishForwards } from "./nics.ts";
import type { OrchestratorPeers } from "./peers.ts";
import { restoreState, type SavedState } from "./saved-machine.ts";
import { delay, unlessAborted, within } from "./time.ts";

export type Stage = "resolve" | "memory" | "disk" | "network" | "board" | "harts" | "restore" | "boot" | "ready";

export interface StartInput {
  readonly spec: MachineSpec;
  /** From an earlier start; undefined: made now if the machine is to have one. */
  readonly disk: MachineDisk | undefined;
  /** The guest goes on from here instead of booting. */
  readonly saved: SavedState | undefined;
  readonly peers: OrchestratorPeers;
  readonly clock: Clock;
  readonly network: string;
  readonly agentTimeoutMs: number;
  readonly signal: AbortSignal;
  /** A stage begins (or says more). */
  progress(stage: Stage, detail: string): void;
  /** The disk was made: to be remembered, or deleted if the start fails. */
  diskCreated(disk: MachineDisk): void;
  /** The board exists: consoles can be attached. */
  boardReady(): void;
  /** The guest is about to go on: from now on its saved state is no more what the machine is. */
  leavesSaved(): void;
}

const SLOW_CALL_MS = 120_000;

/** A guest that goes on may have been anywhere, also before its agent's start: that is no failure. */
const AGENT_PONG_MS = 5000;

/**
 * Builds a machine in the services and boots it (architecture page, section 7). On failure it throws and leaves what was
 * built; the caller tears down.
 */
export async function startMachine(input: StartInput): Promise<LiveMachine> {
  const { peers, clock, spec, signal, progress } = input;
  const machine = spec.name;
  const step = async <T>(stage: Stage, detail: string, run: () => Promise<T>): Promise<T> => {
    progress(stage, detail);
    try {
      return await unlessAborted(signal, run());
    } catch (error) {
      const { condition, message } = asContractError(error);
      const damaged = condition === "corrupt" || (condition === "not-found" && stage === "resolve");
      const heal = damaged ? `; ${healingOf(stage, spec)}` : "";
      throw new ContractError(condition, `start ${machine}, ${stage} (${detail}): ${message}${heal}`, { cause: error });
    }
  };

  const files = await step("resolve", spec.box ? `box ${spec.box}` : "kernel", () => resolveFiles(peers, spec));
  const disk = input.disk ?? planDisk(spec, files.box, files.diskBase);
  const wanted = files.kernel.format.kind === "linux-image" ? planNics(spec, input.network) : [];
  const nics = wanted.length === 0 ? [] : await step("network", wanted.map(({ network }) => network.name).join(", "), () => findNetworks(peers.network, wanted));
  const plan = planBoot({ spec, boxConfig: files.box?.config, ...files, disk, nics });

  await step("memory", `${plan.ramBytes / 1024n / 1024n} MiB`, () =>
    peers.memory.createSpace({
      machine,
      ram: { base: plan.ramBase, bytes: plan.ramBytes },
      holderReserveBytes: BigInt(holderReserveBytes(plan.harts)),
      leaseKinds: spec.lease === "coherent" ? [LeaseKind.COHERENT] : [],
    }),
  );
  const { saved } = input;
  const loaded = saved ? Promise.resolve() : loadFiles(peers, machine, plan); // while disk, harts and board are made
  loaded.catch(() => {}); // reported where it is waited for
  if (disk && !input.disk) {
    await step("disk", disk.id, () =>
      peers.images.createDisk({ disk: Disk.fromPartial(disk) }).then(() => input.diskCreated(disk)),
    );
  }
  if (nics.length > 0) {
    await step("network", nics.map(({ port }) => port).join(", "), async () => {
      if (saved) await checkAddressesFree(peers.network, machine, nics);
      await createPorts(peers.network, machine, nics);
    });
  }
  if (spec.forwards.length > 0) await step("network", spec.forwards.map(({ hostPort, guestPort }) => `${hostPort} → ${guestPort}`).join(", "), () => publishForwards(peers.network, machine, spec.forwards));

  // The harts first: they answer the ISA string that the board's device tree needs. They do not run yet.
  const { isa, mmu } = await step("harts", `${plan.harts} × ${spec.engine}`, () => createHarts(peers, spec, plan));
  const { deviceTree } = await step("board", plan.devices.map((device) => device.id).join(", ") || "no virtio devices", () =>
    peers.devices.createBoard(
      {
        machine,
        harts: plan.harts,
        ramBase: plan.ramBase,
        ramBytes: plan.ramBytes,
        isa,
        bootArguments: plan.bootArguments,
        initrdStart: plan.initrd.start,
        initrdEnd: plan.initrd.end,
        devices: [...plan.devices],
        mmu,
        deterministic: spec.deterministic,
      },
      { timeoutMs: SLOW_CALL_MS },
    ),
  );
  input.boardReady();
  if (saved) {
    await step("restore", "memory, harts, devices", () => restoreState(peers, machine, saved));
    input.leavesSaved();
  } else {
    await step("memory", plan.placements.map((placement) => placement.what).join(", "), async () => {
      await loaded;
      await peers.memory.populate({ machine, address: plan.deviceTree, source: { $case: "data", value: deviceTree }, blobOffset: 0n, length: 0n });
    });
  }

  const live = new LiveMachine({
    name: machine,
    peers,
    clock,
    agentConsole: plan.devices.some((device) => device.kind === "console") ? plan.devices[0]!.backend : "",
    tohost: plan.tohost,
    adopted: saved !== undefined,
  });
  try {
    await step("boot", saved ? "going on" : plan.agentConsole ? "waiting for the guest agent" : "running", async () => {
      await peers.cpu.runHarts({ machine });
      if (saved) await agentPong(input, live);
      else if (plan.agentConsole) await agentHello(input, live);
    });
  } catch (error) {
    live.close();
    throw error;
  }
  return live;
}

export interface ResolvedFiles {
  readonly box: Box | undefined;
  readonly kernel: BlobFile & { readonly format: Awaited<ReturnType<typeof inspectKernel>> };
  readonly initrd: BlobFile | undefined;
  readonly firmware: BlobFile | undefined;
  /** The image that the user gave for the disk. */
  readonly diskBase: BlobFile | undefined;
}

/** What the user named wins over what the box brings. */
export async function resolveFiles(peers: OrchestratorPeers, spec: MachineSpec): Promise<ResolvedFiles> {
  const box = spec.box ? (await peers.images.resolveBox({ reference: spec.box })).box : undefined;
  const stat = async (digest: string | undefined): Promise<BlobFile | undefined> =>
    digest ? { digest, bytes: (await peers.images.statBlob({ digest })).bytes } : undefined;
  const kernel = await stat(spec.kernelDigest || box?.kernel?.digest);
  if (!kernel) throw new ContractError("invalid", `machine ${spec.name} has neither a box with a kernel nor a kernel`);
  const ownFirmware = spec.firmware === "builtin" || spec.firmware === "none" ? "" : spec.firmware;
  return {
    box,
    kernel: { ...kernel, format: await inspectKernel(peers.images, kernel) },
    initrd: await stat(spec.initrdDigest || (spec.kernelDigest ? "" : box?.initrd?.digest)),
    firmware: await stat(ownFirmware || (spec.firmware === "" ? box?.firmware?.digest : "")),
    diskBase: await stat(spec.diskDigest),
  };
}

/** The machine's disk at its first start; undefined: it has none. */
function planDisk(spec: MachineSpec, box: Box | undefined, base: BlobFile | undefined): MachineDisk | undefined {
  const baseDigest = spec.diskDigest || box?.disk?.digest || "";
  const wanted = spec.diskBytes || (base ? base.bytes : box?.config?.diskBytes || (box?.disk?.size ?? 0n));
  const bytes = ((wanted + 511n) / 512n) * 512n; // an image file need not end with a whole sector
  if (!baseDigest && bytes === 0n) return undefined;
  const baseMediaType = spec.diskDigest ? spec.diskMediaType : (box?.disk?.mediaType ?? "");
  return { id: diskId(spec.name), baseDigest, baseMediaType, bytes };
}

function createHarts(peers: OrchestratorPeers, spec: MachineSpec, plan: BootPlan): Promise<{ isa: string; mmu: string }> {
  return peers.cpu.createHarts(
    {
      machine: spec.name,
      harts: plan.harts,
      engine: spec.engine,
      firmware: plan.firmware,
      entry: plan.entry,
      deviceTree: plan.deviceTree,
      ramBase: plan.ramBase,
      ramBytes: plan.ramBytes,
      deterministic: spec.deterministic,
      cpu: spec.cpu,
      code: plan.placements.map(({ digest }) => digest),
    },
    { timeoutMs: SLOW_CALL_MS },
  );
}

/** Kernel, initrd, firmware into memory. */
async function loadFiles(peers: OrchestratorPeers, machine: string, plan: BootPlan): Promise<void> {
  await Promise.all(
    plan.placements.map(({ digest, address, blobOffset, length }) =>
      peers.memory.populate(
        { machine, address, source: { $case: "blobDigest", value: digest }, blobOffset, length },
        { timeoutMs: SLOW_CALL_MS },
      ),
    ),
  );
}

async function agentPong({ clock, signal }: StartInput, live: LiveMachine): Promise<void> {
  const over = new AbortController();
  const { agent } = live;
  if (!agent) return;
  await Promise.race([
    new Promise<void>((resolve) => agent.onReady(resolve)).then(() => {
      // Its clock stood still with it (ADR 65); who has no date(1), or may not set it, goes on with the old time.
      agent.exec(`date -u -s @${Math.round(clock.now() / 1000)} >/dev/null 2>&1`, false, () => {}).ended.catch(() => {});
    }),
    live.whenEnded,
    delay(clock, AGENT_PONG_MS, AbortSignal.any([signal, over.signal])),
  ]);
  over.abort();
}

/** Waits for the agent. A guest that ends or says nothing in time fails the start, with the end of its serial console. */
async function agentHello({ peers, clock, spec, agentTimeoutMs, signal }: StartInput, live: LiveMachine): Promise<void> {
  const hello = new Promise<void>((resolve) => live.agent?.onReady(resolve));
  const over = new AbortController();
  try {
    const outcome = await Promise.race([
      hello.then(() => "hello" as const),
      live.whenEnded,
      delay(clock, agentTimeoutMs, AbortSignal.any([signal, over.signal])).then(() => "timeout" as const),
    ]);
    if (outcome === "hello" || signal.aborted) return;
    const tail = await serialTail(peers, clock, spec.name);
    if (outcome === "timeout") {
      throw new ContractError("timeout", `the guest agent said nothing in ${agentTimeoutMs / 1000} s; its console ends:\n${tail}`);
    }
    throw new ContractError("unavailable", `${outcome.reason} while booting; its console ends:\n${tail}`);
  } finally {
    over.abort();
  }
}

const TAIL_LINES = 12;

/** The last lines of the serial console, for error messages. */
async function serialTail(peers: OrchestratorPeers, clock: Clock, machine: string): Promise<string> {
  const channel = peers.devices.console();
  const text: string[] = [];
  const decoder = new TextDecoder();
  const reading = (async () => {
    for await (const output of messages(channel as never as Parameters<typeof messages<{ data: Uint8Array }>>[0])) {
      text.push(decoder.decode(output.data, { stream: true }));
    }
  })();
  channel.send({ machine, console: "serial0", data: new Uint8Array(0), noReplay: false });
  // The ring is replayed at once; there is no end mark, so a short wait stands for it.
  await within(clock, 500, reading, "console replay").catch(() => {});
  channel.close();
  // Everything but newline and printable characters is cut: the guest must not steer the user's terminal.
  const lines = text.join("").replaceAll(/[^\n\x20-\x7e]/g, "").split("\n").filter(Boolean);
  return lines.slice(-TAIL_LINES).map((line) => `  | ${line}`).join("\n") || "  (nothing was printed)";
}

/** What helps when something that a machine starts from is damaged or gone. */
function healingOf(stage: Stage, { name, box }: MachineSpec): string {
  if (stage === "restore") return `hv halt ${name} gives its kept state up, and its disk stays; or take another copy of the state: hv import, hv snapshot restore`;
  return box ? `put the box back in order with: hv box build ${box}` : "upload the files again: hv destroy, then hv up";
}
