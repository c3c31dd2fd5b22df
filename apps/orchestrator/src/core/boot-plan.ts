import { ContractError } from "@polyvisor/contracts";
import { Firmware } from "@polyvisor/contracts/cpu";
import { DeviceSpec } from "@polyvisor/contracts/device";
import type { BoxConfig } from "@polyvisor/contracts/image";
import type { MachineSpec } from "@polyvisor/contracts/orchestrator";
import { ADDRESS_MAP, KERNEL_OFFSET, PAGE_BYTES } from "@polyvisor/machine";
import type { MachineDisk } from "./machine-store.ts";
import { type PlannedNic, staticAddresses } from "./nics.ts";

/** A blob and how many bytes it has. */
export interface BlobFile {
  readonly digest: string;
  readonly bytes: bigint;
}

/** What a kernel file turned out to be; see `kernel-file.ts`. */
export type KernelFormat =
  | { readonly kind: "linux-image"; readonly memoryBytes: bigint }
  | { readonly kind: "elf"; readonly entry: bigint; readonly segments: readonly ElfLoad[]; readonly tohost: bigint | undefined }
  | { readonly kind: "raw" };

export interface ElfLoad {
  readonly address: bigint;
  readonly fileOffset: bigint;
  readonly fileBytes: bigint;
  readonly memoryBytes: bigint;
}

/** One copy of blob bytes into guest memory. `length` 0n = to the blob's end. */
export interface Placement {
  readonly what: string;
  readonly digest: string;
  readonly address: bigint;
  readonly blobOffset: bigint;
  readonly length: bigint;
}

/** Everything that the services are told at a start, worked out before the first of them is called. */
export interface BootPlan {
  readonly harts: number;
  readonly ramBase: bigint;
  readonly ramBytes: bigint;
  readonly firmware: Firmware;
  readonly entry: bigint;
  readonly deviceTree: bigint;
  readonly initrd: { readonly start: bigint; readonly end: bigint };
  readonly bootArguments: string;
  readonly devices: readonly DeviceSpec[];
  readonly placements: readonly Placement[];
  /** Console of the guest agent; empty: nobody waits for one. */
  readonly agentConsole: string;
  /** Where a bare test program leaves its result (riscv-tests' HTIF convention). */
  readonly tohost: bigint | undefined;
}

export interface BootInput {
  readonly spec: MachineSpec;
  readonly boxConfig: BoxConfig | undefined;
  readonly kernel: BlobFile & { readonly format: KernelFormat };
  readonly initrd: BlobFile | undefined;
  readonly firmware: BlobFile | undefined;
  readonly disk: MachineDisk | undefined;
  readonly nics: readonly PlannedNic[];
}

const MIB = 1024n * 1024n;
/**
 * Linux reserves its image up to the next PMD (arch/riscv/mm/init.c, setup_bootmem: the linear mapping of the kernel is
 * read-only) and refuses an initrd that overlaps the rest of that 2 MiB.
 */
const INITRD_ALIGNMENT = 2n * MIB;
/** More than any tree our board can have. */
const DEVICE_TREE_ROOM = 64n * 1024n;
/** Devices' trees lie below 1 GiB of RAM, where every Linux page-table setup has them mapped early. */
const DEVICE_TREE_LIMIT = 1024n * MIB;
/**
 * OpenSBI's generic platform moves the device tree to FW_TEXT_START + 0x220_0000 before it jumps to the kernel
 * (platform/generic/objects.mk, FW_JUMP_FDT_OFFSET): nothing of ours may lie there.
 */
const OPENSBI_DEVICE_TREE_OFFSET = 0x220_0000n;
const OPENSBI_DEVICE_TREE_ROOM = 2n * MIB;

export const AGENT_CONSOLE = "agent";

/** Lays a machine out in guest-physical memory and lists its devices. Throws when the files do not fit in its RAM. */
export function planBoot({ spec, boxConfig, kernel, initrd, firmware, disk, nics }: BootInput): BootPlan {
  const ramBase = ADDRESS_MAP.ram.base;
  const ramBytes = spec.memoryBytes;
  const bare = kernel.format.kind !== "linux-image";
  const builtin = spec.firmware === "builtin" || (spec.firmware === "" && !bare);
  const layout = new Layout(ramBase, ramBytes);
  const placements: Placement[] = [];
  const place = (what: string, file: BlobFile, address: bigint, memoryBytes = file.bytes): bigint => {
    placements.push({ what, digest: file.digest, address, blobOffset: 0n, length: 0n });
    return layout.claim(what, address, memoryBytes);
  };

  let entry: bigint;
  let tohost: bigint | undefined;
  if (firmware) {
    place("firmware", firmware, ramBase);
    layout.claim("device tree moved by the firmware", ramBase + OPENSBI_DEVICE_TREE_OFFSET, OPENSBI_DEVICE_TREE_ROOM);
  }
  if (kernel.format.kind === "elf") {
    entry = kernel.format.entry;
    tohost = kernel.format.tohost;
    for (const [index, whole] of kernel.format.segments.entries()) {
      const segment = withoutHeaders(whole, ramBase);
      layout.claim(`ELF segment ${index}`, segment.address, segment.memoryBytes);
      if (segment.fileBytes > 0n) {
        placements.push({
          what: `ELF segment ${index}`,
          digest: kernel.digest,
          address: segment.address,
          blobOffset: segment.fileOffset,
          length: segment.fileBytes,
        });
      }
    }
  } else {
    // S-mode kernels lie 2 MiB above RAM's base, where firmware expects them; M-mode images at the base.
    entry = builtin || firmware ? ramBase + KERNEL_OFFSET : ramBase;
    const memoryBytes = kernel.format.kind === "linux-image" ? kernel.format.memoryBytes : kernel.bytes;
    place("kernel", kernel, entry, memoryBytes > kernel.bytes ? memoryBytes : kernel.bytes);
  }
  const kernelEnd = layout.end;
  let initrdRange = { start: 0n, end: 0n };
  if (initrd) {
    const start = alignUp(kernelEnd, INITRD_ALIGNMENT);
    place("initrd", initrd, start);
    initrdRange = { start, end: start + initrd.bytes };
  }
  const deviceTree = layout.deviceTree();
  if (firmware) entry = ramBase;

  const agentConsole = boxConfig?.agentConsole ?? "";
  const ownArguments = [boxConfig?.bootArguments, spec.bootArguments].filter(Boolean).join(" ") || (bare ? "" : "console=ttyS0");
  return {
    harts: spec.harts,
    ramBase,
    ramBytes,
    firmware: builtin && !firmware ? Firmware.BUILTIN : Firmware.NONE,
    entry,
    deviceTree,
    initrd: initrdRange,
    bootArguments: bare ? ownArguments : `${ownArguments} hv.hostname=${spec.name} hv.agent=hvc0${staticAddresses(nics)}`,
    devices: planDevices(bare, disk, nics),
    placements,
    agentConsole,
    tohost,
  };
}

/**
 * GNU ld puts the ELF and program headers into the page before the first section when it is told `-Ttext`; a program
 * linked to RAM's base then has a segment that begins one page below. Those bytes are not part of the program.
 */
function withoutHeaders(segment: ElfLoad, ramBase: bigint): ElfLoad {
  const below = ramBase - segment.address;
  const onlyHeaders = segment.fileOffset === 0n && below > 0n && below <= BigInt(PAGE_BYTES) && segment.fileBytes > below;
  if (!onlyHeaders) return segment;
  return { address: ramBase, fileOffset: below, fileBytes: segment.fileBytes - below, memoryBytes: segment.memoryBytes - below };
}

/** Slot order is device order: the agent's console first, so that it is hvc0 in the guest. */
function planDevices(bare: boolean, disk: MachineDisk | undefined, nics: readonly PlannedNic[]): DeviceSpec[] {
  const devices: DeviceSpec[] = [];
  if (!bare) devices.push(DeviceSpec.fromPartial({ kind: "console", id: AGENT_CONSOLE, backend: AGENT_CONSOLE }));
  if (disk) devices.push(DeviceSpec.fromPartial({ kind: "blk", id: "disk0", backend: disk.id }));
  if (!bare) devices.push(...nics.map(({ id, port, mac }) => DeviceSpec.fromPartial({ kind: "net", id, backend: port, mac })));
  if (!bare) devices.push(DeviceSpec.fromPartial({ kind: "rng", id: "rng0" }));
  return devices;
}

export function diskId(machine: string): string {
  return `${machine}/disk0`;
}

/** What is where in RAM; refuses overlap and what does not fit. */
class Layout {
  readonly #base: bigint;
  readonly #top: bigint;
  readonly #claims: { what: string; start: bigint; end: bigint }[] = [];

  constructor(base: bigint, bytes: bigint) {
    this.#base = base;
    this.#top = base + bytes;
  }

  /** End of the highest claim. */
  get end(): bigint {
    return this.#claims.reduce((end, claim) => (claim.end > end ? claim.end : end), this.#base);
  }

  claim(what: string, start: bigint, bytes: bigint): bigint {
    const end = start + bytes;
    if (start < this.#base || end > this.#top) {
      throw new ContractError(
        "invalid",
        `start: ${what} needs 0x${start.toString(16)}..0x${end.toString(16)}, RAM is 0x${this.#base.toString(16)}..0x${this.#top.toString(16)}; ` +
          (start < this.#base ? "link it for 0x80000000" : "give the machine more memory (--memory)"),
      );
    }
    const other = this.#claims.find((claim) => start < claim.end && claim.start < end);
    if (other) throw new ContractError("invalid", `start: ${what} at 0x${start.toString(16)} overlaps ${other.what}`);
    this.#claims.push({ what, start, end });
    return start;
  }

  /** Near the end of low RAM, 2 MiB aligned as kernels like it; in tiny machines wherever 4 KiB alignment allows. */
  deviceTree(): bigint {
    const limit = this.#top < this.#base + DEVICE_TREE_LIMIT ? this.#top : this.#base + DEVICE_TREE_LIMIT;
    for (const alignment of [2n * MIB, BigInt(PAGE_BYTES)]) {
      const address = ((limit - DEVICE_TREE_ROOM) / alignment) * alignment;
      const free = !this.#claims.some((claim) => address < claim.end && claim.start < address + DEVICE_TREE_ROOM);
      if (address >= this.#base && free) return this.claim("device tree", address, DEVICE_TREE_ROOM);
    }
    throw new ContractError(
      "invalid",
      `start: no room for the device tree below 0x${limit.toString(16)} beside ${this.#claims.map((claim) => claim.what).join(", ")}; give the machine more memory (--memory)`,
    );
  }
}

function alignUp(value: bigint, alignment: bigint): bigint {
  return ((value + alignment - 1n) / alignment) * alignment;
}
