import assert from "node:assert/strict";
import { ContractError, type Channel, type Condition } from "@polyvisor/contracts";
import { Network, NetworkMode, Port, type FrameBatch, type NETWORK, type NetworkPort } from "@polyvisor/contracts/network";
import type { ConformanceCase, ConformanceEnvironment } from "../suite.ts";

export async function fails(promise: Promise<unknown>, ...conditions: Condition[]): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof ContractError, `not a ContractError: ${String(error)}`);
    assert.ok(conditions.includes(error.condition), `${error.condition}: ${error.message}`);
    return true;
  });
}

/** A network interface driven by hand. */
export class Nic {
  readonly port: Port;
  readonly channel: Channel<FrameBatch, FrameBatch>;
  readonly closed: Promise<ContractError | undefined>;
  /** Credit that the fabric has given and that has not been used. */
  credit = 0;
  linkUp = false;
  received: Uint8Array[] = [];
  readonly #environment: ConformanceEnvironment;
  #changed = () => {};

  constructor(service: NetworkPort, environment: ConformanceEnvironment, port: Port, credit = 64) {
    this.port = port;
    this.#environment = environment;
    this.channel = service.frames();
    this.closed = new Promise((resolve) => this.channel.onClose(resolve));
    this.channel.onMessage((batch) => {
      this.credit += batch.credit;
      this.linkUp = batch.linkUp;
      this.received.push(...batch.frames.map(({ data }) => data));
      this.#changed();
    });
    this.give(credit);
  }
  give(credit: number): void {
    this.channel.send({ machine: this.port.machine, port: this.port.id, frames: [], credit, linkUp: false, takesOffload: false });
  }
  send(...frames: Uint8Array[]): void {
    this.credit -= frames.length;
    const list = frames.map((data) => ({ data, offload: undefined }));
    this.channel.send({ machine: this.port.machine, port: this.port.id, frames: list, credit: 0, linkUp: false, takesOffload: false });
  }
  /** Waits until the predicate holds after some batch. */
  async until(holds: () => boolean, what: string): Promise<void> {
    const promise = new Promise<void>((resolve) => {
      this.#changed = () => {
        if (holds()) resolve();
      };
      this.#changed();
    });
    await this.#environment.within(5000, promise, what);
  }
  async ready(): Promise<this> {
    await this.until(() => this.credit > 0 && this.linkUp, "the fabric's first credit");
    return this;
  }
  async frames(count: number): Promise<Uint8Array[]> {
    await this.until(() => this.received.length >= count, `${count} frames`);
    return this.received.splice(0, count);
  }
}

export const BROADCAST = [255, 255, 255, 255, 255, 255];
export const macOf = (port: Port): number[] => port.mac.split(":").map((byte) => parseInt(byte, 16));
/** A frame of an EtherType for experiments (IEEE 802, 9.2.3) that says one byte. */
export function frame(to: number[], from: number[], byte: number): Uint8Array {
  const bytes = new Uint8Array(60);
  bytes.set([...to, ...from, 0x88, 0xb5, byte]);
  return bytes;
}
export const said = (bytes: Uint8Array): number => bytes[14]!;

/** A case on a fresh INTERNAL network with some NICs. */
export function onSwitch(
  requirement: string,
  title: string,
  count: number,
  run: (nics: Nic[], service: NetworkPort, environment: ConformanceEnvironment) => Promise<void>,
): ConformanceCase<typeof NETWORK.definition> {
  return {
    requirement,
    title,
    async run(service, environment) {
      const name = environment.unique("net");
      await service.createNetwork({ network: Network.fromPartial({ name, mode: NetworkMode.INTERNAL, stormLimit: 1_000_000 }) });
      const nics: Nic[] = [];
      for (let i = 0; i < count; i++) nics.push(await openNic(service, environment, name));
      try {
        await run(nics, service, environment);
      } finally {
        for (const { port } of nics) await service.deletePort({ id: port.id });
        await service.deleteNetwork({ name });
      }
    },
  };
}
export async function openNic(service: NetworkPort, environment: ConformanceEnvironment, network: string, credit = 64): Promise<Nic> {
  const machine = environment.unique("machine");
  const { port } = await service.createPort({ port: Port.fromPartial({ id: `${machine}/net0`, machine, network, linkUp: true }) });
  return await new Nic(service, environment, port!, credit).ready();
}
