import { ContractError } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import { MachineSpec } from "@polyvisor/contracts/orchestrator";
import { holderReserveBytes, PAGE_BYTES } from "@polyvisor/machine";
import { checkNics } from "./nics.ts";

const DEFAULT_MEMORY_BYTES = 256n * 1024n * 1024n;
const MIN_MEMORY_BYTES = 1024n * 1024n;
/** RAM and what the harts keep beside it share one 32-bit WebAssembly memory (memory.proto, CreateSpaceRequest). */
const ADDRESSABLE_BYTES = 4n * 1024n * 1024n * 1024n;
const MAX_HARTS = 8; // cpu.proto, CreateHartsRequest.harts
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const MAX_BOOT_ARGUMENTS = 2048; // COMMAND_LINE_SIZE of Linux on riscv is 1024; the rest is for other kernels

export function checkName(name: string): void {
  if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(name)) throw invalid(`name "${name.slice(0, 80)}"; expected 1 to 63 of a-z, 0-9 and "-", not beginning with "-"`);
}

/** Refuses what can never work, in the user's words; answers the spec without output-only fields. */
export function checkSpec(spec: MachineSpec | undefined): MachineSpec {
  if (!spec) throw invalid("no machine spec given");
  checkName(spec.name);
  if (!spec.box && !spec.kernelDigest) throw invalid(`machine ${spec.name} has neither box nor kernel; give one of them`);
  for (const [field, digest] of [["kernel", spec.kernelDigest], ["initrd", spec.initrdDigest], ["disk", spec.diskDigest]] as const) {
    if (digest && !DIGEST.test(digest)) throw invalid(`${field} digest "${digest.slice(0, 80)}"; expected sha256:<64 hex digits>`);
  }
  if (!["", "coherent"].includes(spec.lease)) throw invalid(`lease "${spec.lease.slice(0, 80)}"; expected coherent, or nothing for the best there is`);
  if (spec.firmware && !["builtin", "none"].includes(spec.firmware) && !DIGEST.test(spec.firmware)) {
    throw invalid(`firmware "${spec.firmware.slice(0, 80)}"; expected builtin, none or sha256:<64 hex digits>`);
  }
  if (!/^[a-z0-9=,]{0,200}$/.test(spec.cpu)) throw invalid(`cpu "${spec.cpu.slice(0, 80)}"; expected features such as h=off,mmu=sv57`);
  if (spec.harts > MAX_HARTS) throw invalid(`${spec.harts} CPUs; at most ${MAX_HARTS}`);
  if (spec.memoryBytes !== 0n && (spec.memoryBytes < MIN_MEMORY_BYTES || spec.memoryBytes % BigInt(PAGE_BYTES) !== 0n)) {
    throw invalid(`${spec.memoryBytes} bytes of memory; expected at least 1 MiB and a multiple of ${PAGE_BYTES}`);
  }
  if (spec.diskDigest && spec.diskMediaType && spec.diskBytes === 0n) throw invalid("a chunked disk without its size; give diskBytes");
  if (spec.deterministic && spec.harts > 1) throw invalid(`deterministic time with ${spec.harts} CPUs; it needs a machine of one`);
  if (spec.diskBytes % 512n !== 0n) throw invalid(`disk of ${spec.diskBytes} bytes; expected a multiple of 512`);
  if (spec.bootArguments.length > MAX_BOOT_ARGUMENTS || /[^\x20-\x7e]/.test(spec.bootArguments)) {
    throw invalid(`boot arguments; expected at most ${MAX_BOOT_ARGUMENTS} printable ASCII characters`);
  }
  checkNics(spec);
  return { ...spec, topology: "" };
}

/** Fills zeros and empties from the box, else with the defaults of orchestrator.proto. Fails if the box is unknown. */
export async function completeSpec(spec: MachineSpec, images: ImagePort): Promise<MachineSpec> {
  const config = spec.box ? (await images.resolveBox({ reference: spec.box })).box?.config : undefined;
  const harts = spec.harts || (spec.deterministic ? 1 : config?.harts) || 1;
  const memoryBytes = spec.memoryBytes || config?.memoryBytes || DEFAULT_MEMORY_BYTES;
  const most = ADDRESSABLE_BYTES - BigInt(holderReserveBytes(harts));
  if (memoryBytes > most) throw invalid(`${memoryBytes} bytes of memory; at most ${most / 1024n / 1024n}M with ${harts} CPUs`);
  return {
    ...spec,
    harts,
    memoryBytes,
    engine: spec.engine || "dynamic",
  };
}

function invalid(what: string): ContractError {
  return new ContractError("invalid", `create machine: ${what}`);
}
