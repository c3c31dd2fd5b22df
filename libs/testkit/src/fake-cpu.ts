import { ContractError, type Channel, type Implementation } from "@polyvisor/contracts";
import { CPU, InterruptLine, type InterruptAck, type InterruptSignal } from "@polyvisor/contracts/cpu";

/** The interrupt inputs of harts that run nothing. */
export class FakeCpu {
  readonly signals: InterruptSignal[] = [];
  readonly #channels = new Set<Channel<InterruptAck, InterruptSignal>>();

  readonly implementation: Implementation<typeof CPU.definition> = {
    interrupts: (channel) => {
      this.#channels.add(channel);
      channel.onClose(() => void this.#channels.delete(channel));
      channel.onMessage((signal) => {
        this.signals.push(signal);
        if (signal.acknowledge) channel.send({ machine: signal.machine, sequence: signal.sequence });
      });
    },
  };

  /** The last level of a wire; undefined: never driven. */
  level(machine: string, hart: number, line: InterruptLine = InterruptLine.SUPERVISOR_EXTERNAL): boolean | undefined {
    return this.signals.findLast((signal) => signal.machine === machine && signal.hart === hart && signal.line === line)?.level;
  }

  get openStreams(): number {
    return this.#channels.size;
  }

  breakStreams(error = new ContractError("unavailable", "the cpu-emulator is gone")): void {
    for (const channel of [...this.#channels]) channel.close(error);
  }
  /** Ends the streams as destroyed harts do. */
  endStreams(): void {
    for (const channel of [...this.#channels]) channel.close();
  }
}
