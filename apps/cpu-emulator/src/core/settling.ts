import { AnswerStatus, ExitKind, type HartMailbox } from "./mailbox.ts";

/** Answer of a board that is not on any more. */
const NEVER_AGAIN = 0xffff_ffff_ffff_ffffn;

/**
 * A deterministic machine's way with its board (ADR 31, DEV-19): after each write to a device the hart waits until the devices have done all
 * that they can do, so their DMA and their interrupt lines are there at the guest's next instruction, however long the host took.
 *
 * The board's clock is the guest's as of the last look at interrupts: the one moment that is the same on every engine.
 */
export class Settling {
  readonly #mailbox: HartMailbox;
  #ticks = 0;
  #told = -1;
  /** Guest time, in ticks, at which the board has something to do by itself. */
  deadline = Infinity;
  /** The machine has been powered off, or is to be reset: the hart stops at its next look. */
  ended = false;

  constructor(mailbox: HartMailbox) {
    this.#mailbox = mailbox;
  }

  /** The hart looks at interrupts now. */
  look(ticks: number): void {
    this.#ticks = ticks;
    if (ticks >= this.deadline) this.settle();
  }
  /** The device that is about to be read may show the time. */
  beforeRead(): void {
    if (this.#told === this.#ticks) return;
    this.#told = this.#ticks;
    this.#mailbox.post(ExitKind.SETTLE, 0, 0n, BigInt(this.#ticks));
  }
  settle(): void {
    this.#told = this.#ticks;
    if (this.#mailbox.call(ExitKind.SETTLE, 0, 0n, BigInt(this.#ticks)) !== AnswerStatus.OK) return;
    const next = this.#mailbox.answerValue();
    this.ended = next === NEVER_AGAIN;
    this.deadline = Number(next) || Infinity;
  }
}
