import { mediated, type Channel } from "@polyvisor/contracts";
import { CPU } from "@polyvisor/contracts/cpu";
import { ExitStatus, type CreateBoardRequest, type DevicePort, type DeviceSpec, type ExitRequest, type ExitResponse } from "@polyvisor/contracts/device";
import { IMAGE } from "@polyvisor/contracts/image";
import { MEMORY } from "@polyvisor/contracts/memory";
import { NETWORK } from "@polyvisor/contracts/network";
import { ADDRESS_MAP } from "@polyvisor/machine";
import { FakeCpu, FakeDmaMemory, FakeImages, FakeNetwork, testContext, VirtioDriver } from "@polyvisor/testkit";
import { DEFAULT_CONFIG } from "../config.ts";
import { createService } from "../service.ts";

export const RAM_BYTES = 8 * 1024 * 1024;

/** A device-bus with fake peers, reached through its port, and one hart's view of a board. */
export async function rig() {
  const memory = new FakeDmaMemory(RAM_BYTES);
  const images = new FakeImages();
  const network = new FakeNetwork();
  const cpu = new FakeCpu();
  const context = testContext();
  const service = await createService(
    DEFAULT_CONFIG,
    {
      memory: mediated(MEMORY, memory.implementation),
      images: mediated(IMAGE, images.implementation),
      network: mediated(NETWORK, network.implementation),
      cpu: mediated(CPU, cpu.implementation),
    },
    context,
  );
  const port: DevicePort = mediated(service.contract, service.implementation);
  return { memory, images, network, cpu, context, service, port, facts: context.facts };
}

export function boardRequest(machine: string, devices: Partial<DeviceSpec>[] = [], harts = 1): CreateBoardRequest {
  return {
    machine,
    harts,
    ramBase: ADDRESS_MAP.ram.base,
    ramBytes: BigInt(RAM_BYTES),
    isa: "rv64imafdc_zicsr_zifencei",
    bootArguments: "console=ttyS0",
    initrdStart: 0n,
    initrdEnd: 0n,
    devices: devices.map((device) => ({ kind: "", id: "", backend: "", mac: "", readOnly: false, ...device })),
    mmu: "",
    deterministic: false,
  };
}

/** A hart that does one access at a time. */
export class TestHart {
  readonly channel: Channel<ExitRequest, ExitResponse>;
  readonly #machine: string;
  readonly #hart: number;
  #id = 0n;
  #answer: ExitResponse | undefined;

  constructor(port: DevicePort, machine: string, hart = 0) {
    this.#machine = machine;
    this.#hart = hart;
    this.channel = port.exits();
    this.channel.onMessage((response) => void (this.#answer = response));
  }

  /** The local adapter answers before `send` returns. Undefined: access fault. */
  read(address: bigint, size: number): bigint | undefined {
    const response = this.ask({ $case: "mmioRead", value: { address, size } });
    return response.status === ExitStatus.OK ? response.value : undefined;
  }

  write(address: bigint, size: number, value: bigint): void {
    this.channel.send({ machine: this.#machine, hart: this.#hart, id: 0n, exit: { $case: "mmioWrite", value: { address, size, value } } });
  }

  say(exit: ExitRequest["exit"]): void {
    this.channel.send({ machine: this.#machine, hart: this.#hart, id: 0n, exit });
  }

  ask(exit: ExitRequest["exit"]): ExitResponse {
    this.#answer = undefined;
    const id = ++this.#id;
    this.channel.send({ machine: this.#machine, hart: this.#hart, id, exit });
    const answer = this.#answer as ExitResponse | undefined;
    if (answer?.id !== id) throw new Error("the exit was not answered at once");
    return answer;
  }

  /** A driver for the device in a virtio slot; its structures lie in memory from `at`. */
  driver(memory: FakeDmaMemory, slot: number, at: bigint = memory.base + 0x10_0000n * BigInt(slot + 1)): VirtioDriver {
    const base = ADDRESS_MAP.virtio.base + BigInt(slot) * ADDRESS_MAP.virtio.bytes;
    return new VirtioDriver(
      memory,
      {
        read: (offset) => Number(this.read(base + BigInt(offset), 4)),
        write: (offset, value) => this.write(base + BigInt(offset), 4, BigInt(value)),
      },
      at,
    );
  }
}

export const settle = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));
