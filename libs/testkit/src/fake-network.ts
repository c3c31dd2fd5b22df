import { ContractError, type Channel, type Implementation } from "@polyvisor/contracts";
import { NETWORK, type FrameBatch, type Offload } from "@polyvisor/contracts/network";

/** The far end of NICs: keeps what the guest sends and sends what the test says, without looking at credit. */
export class FakeNetwork {
  /** Frames received, by port; and what offload they came with. */
  readonly received = new Map<string, Uint8Array[]>();
  readonly offloads = new Map<string, (Offload | undefined)[]>();
  /** What each port's other side last said about taking offload. */
  readonly takesOffload = new Map<string, boolean>();
  /** Credit that each port's other side has given, in total. */
  readonly credit = new Map<string, number>();
  /** Credit that the first message of a stream is answered with. */
  initialCredit = 1024;
  readonly #channels = new Map<string, Channel<FrameBatch, FrameBatch>>();

  readonly implementation: Implementation<typeof NETWORK.definition> = {
    frames: (channel) => {
      let port = "";
      channel.onClose(() => void this.#channels.delete(port));
      channel.onMessage((batch) => {
        if (port === "") {
          port = batch.port;
          this.#channels.set(port, channel);
          this.received.set(port, []);
          this.offloads.set(port, []);
          this.give(port, { machine: batch.machine, credit: this.initialCredit });
        }
        this.takesOffload.set(port, batch.takesOffload);
        this.received.get(port)!.push(...batch.frames.map(({ data }) => data));
        this.offloads.get(port)!.push(...batch.frames.map(({ offload }) => offload));
        this.credit.set(port, (this.credit.get(port) ?? 0) + batch.credit);
      });
    },
  };

  /** Sends frames or credit to a port. */
  give(port: string, { machine = "", frames = [], offload, credit = 0, linkUp = true }: { machine?: string; frames?: Uint8Array[]; offload?: Offload; credit?: number; linkUp?: boolean }): void {
    this.#channels.get(port)?.send({ machine, port, frames: frames.map((data) => ({ data, offload })), credit, linkUp, takesOffload: true });
  }

  get openPorts(): readonly string[] {
    return [...this.#channels.keys()];
  }

  breakStreams(): void {
    for (const channel of [...this.#channels.values()]) channel.close(new ContractError("unavailable", "the network-fabric is gone"));
  }
}
