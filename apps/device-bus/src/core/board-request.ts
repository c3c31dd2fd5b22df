import { ContractError } from "@polyvisor/contracts";
import type { CreateBoardRequest, DeviceSpec } from "@polyvisor/contracts/device";
import { ADDRESS_MAP } from "@polyvisor/machine";

/** A request that was checked: what {@link Board} builds. */
export interface BoardPlan {
  machine: string;
  harts: number;
  ramBase: bigint;
  ramBytes: bigint;
  isa: string;
  mmu: string;
  bootArguments: string;
  initrd?: { start: bigint; end: bigint };
  devices: DevicePlan[];
  /** Random numbers from a fixed seed, time as the hart tells it, one request after another (DEV-19). */
  deterministic: boolean;
}
export type DevicePlan =
  | { kind: "blk"; id: string; disk: string; readOnly: boolean }
  | { kind: "net"; id: string; port: string; mac: Uint8Array }
  | { kind: "console"; id: string; console: string }
  | { kind: "rng"; id: string };

const MAX_HARTS = 8;
/** Sv48 is what the cpu-emulator offers; Linux falls back when asked to (`no4lvl`). */
const DEFAULT_MMU = "riscv,sv48";
/** Linux: COMMAND_LINE_SIZE of riscv. */
const MAX_BOOT_ARGUMENTS_BYTES = 2048;
const RESERVED_IDS = ["serial0", "plic", "rtc", "test", "bus", "dma"];

/** Checks a CreateBoard request. Throws ContractError "invalid" that names the field, what came and what would work. */
export function planBoard(request: CreateBoardRequest): BoardPlan {
  const invalid = (field: string, got: unknown, expected: string) =>
    new ContractError("invalid", `create board ${request.machine || "?"}: ${field} is ${String(got)}, expected ${expected}`);
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(request.machine))
    throw invalid("machine", JSON.stringify(request.machine), "1 to 128 letters, digits, '.', '_' or '-'");
  if (request.harts < 1 || request.harts > MAX_HARTS) throw invalid("harts", request.harts, `1 to ${MAX_HARTS}`);
  if (request.deterministic && request.harts !== 1) throw invalid("harts", request.harts, "1 on a deterministic board");
  if (request.ramBase !== ADDRESS_MAP.ram.base)
    throw invalid("ram_base", `0x${request.ramBase.toString(16)}`, `0x${ADDRESS_MAP.ram.base.toString(16)}`);
  if (request.ramBytes === 0n || request.ramBytes % 4096n !== 0n || request.ramBytes > 1n << 40n)
    throw invalid("ram_bytes", request.ramBytes, "a multiple of 4096, at most 1 TiB");
  if (!/^rv64[a-z]+[a-z0-9_]*$/.test(request.isa)) throw invalid("isa", JSON.stringify(request.isa), 'as "rv64imafdc_zicsr"');
  if (request.mmu !== "" && !/^riscv,(none|sv39|sv48|sv57)$/.test(request.mmu))
    throw invalid("mmu", JSON.stringify(request.mmu), '"riscv,sv39", "riscv,sv48" or empty');
  if (request.bootArguments.length > MAX_BOOT_ARGUMENTS_BYTES || request.bootArguments.includes("\0"))
    throw invalid("boot_arguments", `${request.bootArguments.length} characters`, `at most ${MAX_BOOT_ARGUMENTS_BYTES}, no zero`);
  const ramEnd = request.ramBase + request.ramBytes;
  const hasInitrd = request.initrdStart !== 0n || request.initrdEnd !== 0n;
  if (hasInitrd && !(request.initrdStart >= request.ramBase && request.initrdStart < request.initrdEnd && request.initrdEnd <= ramEnd))
    throw invalid("initrd", `0x${request.initrdStart.toString(16)}..0x${request.initrdEnd.toString(16)}`, "a range inside RAM");
  if (request.devices.length > ADDRESS_MAP.virtio.slots)
    throw invalid("devices", request.devices.length, `at most ${ADDRESS_MAP.virtio.slots}, one per virtio slot`);

  const ids = new Set<string>(RESERVED_IDS);
  const consoles = new Set<string>(["serial0"]);
  const devices = request.devices.map((spec): DevicePlan => {
    if (!/^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/.test(spec.id) || ids.has(spec.id))
      throw invalid("device id", JSON.stringify(spec.id), "a name that no other device of the board has");
    ids.add(spec.id);
    const device = planDevice(spec, invalid);
    if (device.kind === "console") {
      if (consoles.has(device.console)) throw invalid(`console of ${spec.id}`, device.console, "a name of its own");
      consoles.add(device.console);
    }
    return device;
  });
  return {
    machine: request.machine,
    harts: request.harts,
    ramBase: request.ramBase,
    ramBytes: request.ramBytes,
    isa: request.isa,
    mmu: request.mmu || DEFAULT_MMU,
    bootArguments: request.bootArguments,
    ...(hasInitrd ? { initrd: { start: request.initrdStart, end: request.initrdEnd } } : {}),
    devices,
    deterministic: request.deterministic,
  };
}

function planDevice(spec: DeviceSpec, invalid: (field: string, got: unknown, expected: string) => ContractError): DevicePlan {
  const { kind, id, backend } = spec;
  switch (kind) {
    case "blk":
      if (!backend) throw invalid(`backend of ${id}`, "empty", "a disk of the image-registry");
      return { kind, id, disk: backend, readOnly: spec.readOnly };
    case "net": {
      if (!backend) throw invalid(`backend of ${id}`, "empty", "a port of the network-fabric");
      const octets = spec.mac.split(":").map((octet) => (/^[0-9a-fA-F]{2}$/.test(octet) ? Number.parseInt(octet, 16) : -1));
      if (octets.length !== 6 || octets.includes(-1) || (octets[0]! & 1) !== 0)
        throw invalid(`mac of ${id}`, JSON.stringify(spec.mac), 'a unicast address as "52:54:00:12:34:56"');
      return { kind, id, port: backend, mac: new Uint8Array(octets) };
    }
    case "console":
      return { kind, id, console: backend || id };
    case "rng":
      return { kind, id };
    default:
      throw invalid(`kind of ${id}`, JSON.stringify(kind), '"blk", "net", "console" or "rng"');
  }
}
