import { mediated } from "@polyvisor/contracts";
import { Firmware, type CpuPort } from "@polyvisor/contracts/cpu";
import { DEVICE } from "@polyvisor/contracts/device";
import { MEMORY, type MemoryPort } from "@polyvisor/contracts/memory";
import { holderReserveBytes } from "@polyvisor/machine";
import { FakeBus, FakeMemory, testContext } from "@polyvisor/testkit";
import { createService, DEFAULT_CONFIG } from "../index.ts";

export const RAM_BASE = 0x8000_0000n;

export interface BareProgram {
  /** Placed at RAM base, where the harts start. */
  readonly program: Uint8Array;
  readonly engine?: string;
  readonly lease?: "shared" | "coherent";
  readonly harts?: number;
  readonly deterministic?: boolean;
  /** Digests of what it was started from, see CreateHarts. */
  readonly code?: readonly string[];
  readonly firmware?: Firmware;
  readonly ramBytes?: bigint;
}

export interface BareMachine {
  readonly id: string;
  readonly cpu: CpuPort;
  readonly memory: MemoryPort;
  readonly fakeMemory: FakeMemory;
  readonly bus: FakeBus;
  readonly context: ReturnType<typeof testContext>;
  close(): Promise<void>;
}

/** A machine with one program in RAM, between the real service (worker threads and all) and fake neighbours. */
export async function bareMachine(options: BareProgram): Promise<BareMachine> {
  const id = "bare";
  const harts = options.harts ?? 1;
  const ramBytes = options.ramBytes ?? 0x10_0000n;
  const fakeMemory = new FakeMemory();
  const memory = mediated(MEMORY, fakeMemory.implementation);
  const bus = new FakeBus();
  const context = testContext();
  await memory.createSpace({ machine: id, ram: { base: RAM_BASE, bytes: ramBytes }, holderReserveBytes: BigInt(holderReserveBytes(harts)), leaseKinds: [] });
  await memory.populate({ machine: id, address: RAM_BASE, source: { $case: "data", value: options.program }, blobOffset: 0n, length: 0n });
  const service = await createService(
    DEFAULT_CONFIG,
    { memory, devices: mediated(DEVICE, bus.implementation), sharedMemory: options.lease === "shared" ? fakeMemory : undefined },
    context,
  );
  const cpu = mediated(service.contract, service.implementation);
  await cpu.createHarts({
    machine: id, harts, engine: options.engine ?? "interpreter", firmware: options.firmware ?? Firmware.NONE,
    entry: RAM_BASE, deviceTree: 0n, ramBase: RAM_BASE, ramBytes, deterministic: options.deterministic ?? false, cpu: "", code: [...(options.code ?? [])],
  });
  return { id, cpu, memory, fakeMemory, bus, context, close: () => service.close() };
}
