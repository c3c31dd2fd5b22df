import type { Channel } from "@polyvisor/contracts";
import { InterruptLine, type CpuPort, type InterruptAck, type InterruptSignal } from "@polyvisor/contracts/cpu";

/**
 * The external interrupt wires from the PLIC to the harts. Opened when the first exit of a machine arrives: the harts
 * exist then. Levels that change before are sent at that moment; levels are idempotent.
 */
export class InterruptOutput {
  readonly #machine: string;
  readonly #cpu: CpuPort;
  readonly #lost: (reason: string) => void;
  readonly #levels: boolean[];
  #channel: Channel<InterruptSignal, InterruptAck> | undefined;
  #sequence = 0n;
  #closed = false;
  /** Ask for an acknowledgement of each level. */
  readonly #acknowledged: boolean;
  #seen = 0n;
  signals = 0;

  constructor(machine: string, harts: number, cpu: CpuPort, lost: (reason: string) => void, acknowledged = false) {
    this.#machine = machine;
    this.#cpu = cpu;
    this.#lost = lost;
    this.#acknowledged = acknowledged;
    this.#levels = Array.from({ length: harts * 2 }, () => false);
  }

  set(hart: number, mode: "machine" | "supervisor", level: boolean): void {
    const wire = hart * 2 + (mode === "machine" ? 0 : 1);
    this.#levels[wire] = level;
    if (this.#channel) this.#send(wire);
  }

  /** Called with every new exits stream; does nothing while the wires are up. */
  open(): void {
    if (this.#channel || this.#closed) return;
    const channel = this.#cpu.interrupts();
    this.#channel = channel;
    this.#sequence = this.#seen = 0n;
    channel.onMessage(({ sequence }) => void (this.#seen = sequence));
    channel.onClose((error) => {
      if (this.#channel === channel) this.#channel = undefined;
      // The harts are gone on purpose, or not there yet; new ones bring new exits.
      const absent = !error || error.condition === "not-found" || error.condition === "cancelled";
      if (!absent && !this.#closed) this.#lost(`interrupt stream to the cpu-emulator ended: ${error?.message}`);
    });
    for (let wire = 0; wire < this.#levels.length; wire++) this.#send(wire);
  }

  /** With `acknowledged`: the harts can see all levels. */
  get settled(): boolean {
    return !this.#acknowledged || !this.#channel || this.#seen === this.#sequence;
  }

  close(): void {
    this.#closed = true;
    this.#channel?.close();
  }

  #send(wire: number): void {
    this.signals++;
    this.#channel?.send({
      machine: this.#machine,
      hart: wire >> 1,
      line: (wire & 1) === 0 ? InterruptLine.MACHINE_EXTERNAL : InterruptLine.SUPERVISOR_EXTERNAL,
      level: this.#levels[wire]!,
      sequence: ++this.#sequence,
      acknowledge: this.#acknowledged,
    });
  }
}
