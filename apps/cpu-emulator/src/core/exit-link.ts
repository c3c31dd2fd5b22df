import { ContractError, type Channel } from "@polyvisor/contracts";
import { ExitStatus, type DevicePort, type ExitRequest, type ExitResponse } from "@polyvisor/contracts/device";
import { AnswerStatus, ExitKind, type Exit, type HostMailbox } from "./mailbox.ts";
import type { PageLease } from "./lease.ts";

/** No exit of a hart has it: those are below 2^32. */
const FENCE_ID = 1n << 32n;
const NO_DATA = new Uint8Array(0);
/** What a guest reads from a console whose stream is gone, and the like. */
const FAULT = { status: AnswerStatus.FAULT, value: 0n };

export interface ExitLinkOptions {
  readonly machine: string;
  readonly hart: number;
  readonly mailbox: HostMailbox;
  readonly lease: PageLease;
  readonly onClose: (reason: string) => void;
}

/**
 * One hart's exits, from its mailbox to its stream to the device-bus, in order; answers the other way. Page requests go
 * to the lease.
 */
export class ExitLink {
  readonly #options: ExitLinkOptions;
  #channel: Channel<ExitRequest, ExitResponse> | undefined;
  #blocked = false;
  #closing = false;
  /** The exit that the hart waits for: it has one at most. */
  #waiting = 0;
  #fenced: (() => void) | undefined;

  constructor(options: ExitLinkOptions) {
    this.#options = options;
  }

  /** Opens the stream; `resume` when there is room in it again. */
  open(devices: DevicePort, resume: () => void): void {
    if (this.#channel) return;
    const channel = (this.#channel = devices.exits());
    channel.onMessage((response) => this.#answered(response));
    channel.onDrain(() => {
      this.#blocked = false;
      resume();
    });
    channel.onClose((error) => {
      this.#fenced?.();
      this.#release();
      if (!this.#closing) this.#options.onClose(error?.message ?? `the device-bus ended the exit stream of hart ${this.#options.hart}`);
    });
  }

  /** An exit has been sent whose answer has not come. */
  get waiting(): boolean {
    return this.#waiting !== 0;
  }

  /** Resolves when the device-bus has executed everything that was sent: it answers also what it does not know (DEV-5). */
  fence(): Promise<void> {
    const { machine, hart } = this.#options;
    return new Promise((resolve) => {
      if (!this.#channel || this.#channel.closed) return resolve();
      this.#fenced = resolve;
      this.#channel.send({ machine, hart, id: FENCE_ID, exit: undefined });
    });
  }

  /** Takes what is in the ring. False when the ring was empty. */
  drain(): boolean {
    const { mailbox } = this.#options;
    let any = false;
    while (!this.#blocked) {
      const exit = mailbox.take();
      if (!exit) break;
      any = true;
      this.#forward(exit);
    }
    return any;
  }

  /** Ends the stream; a hart that waits for an answer gets a fault. */
  close(): void {
    this.#closing = true;
    this.#channel?.close();
    this.drain();
    this.#release();
  }

  #forward(exit: Exit): void {
    const { mailbox, lease } = this.#options;
    const { sequence } = exit;
    switch (exit.kind) {
      case ExitKind.PAGE:
        lease.acquire(Number(exit.address), exit.value !== 0n, (held) =>
          mailbox.answer(sequence, held ? AnswerStatus.OK : AnswerStatus.FAULT, 0n),
        );
        return;
      case ExitKind.MMIO_WRITE:
        return void this.#send(0n, { $case: "mmioWrite", value: { address: exit.address, size: exit.size, value: exit.value } });
      case ExitKind.MMIO_READ:
        return this.#ask(sequence, { $case: "mmioRead", value: { address: exit.address, size: exit.size } });
      case ExitKind.SETTLE: {
        const settle = { $case: "settle", value: { time: exit.value } } as const;
        return sequence === 0 ? void this.#send(0n, settle) : this.#ask(sequence, settle);
      }
      case ExitKind.CONSOLE_BYTE:
        return void this.#send(0n, { $case: "consoleWrite", value: { data: Uint8Array.of(Number(exit.value)) } });
      case ExitKind.CONSOLE_WRITE: {
        const data = mailbox.postedData(exit.size);
        const sent = this.#send(0n, { $case: "consoleWrite", value: { data } });
        return mailbox.answer(sequence, sent ? AnswerStatus.OK : AnswerStatus.FAULT, 0n);
      }
      case ExitKind.CONSOLE_READ:
        return this.#ask(sequence, { $case: "consoleRead", value: { maxBytes: exit.size } });
      case ExitKind.SYSTEM_RESET:
        return void this.#send(0n, { $case: "systemReset", value: { type: Number(exit.address), reason: Number(exit.value) } });
    }
  }
  /** Sends an exit that waits. Its number is noted first: the answer may come before `send` returns. */
  #ask(sequence: number, exit: ExitRequest["exit"]): void {
    this.#waiting = sequence;
    if (!this.#send(BigInt(sequence >>> 0), exit)) this.#release();
  }
  /** False: the stream is closed. */
  #send(id: bigint, exit: ExitRequest["exit"]): boolean {
    const channel = this.#channel;
    if (!channel || channel.closed) return false;
    const { machine, hart } = this.#options;
    if (!channel.send({ machine, hart, id, exit }) && !channel.closed) this.#blocked = true;
    return true;
  }
  #answered(response: ExitResponse): void {
    if (response.id === FENCE_ID && this.#fenced) {
      this.#fenced();
      this.#fenced = undefined;
      return;
    }
    const sequence = Number(response.id & 0xffff_ffffn) | 0;
    if (sequence === 0 || sequence !== this.#waiting) {
      this.#channel?.close(new ContractError("invalid", `exit stream: answer ${response.id}, but exit ${this.#waiting >>> 0} waits (0 = none)`));
      return;
    }
    this.#waiting = 0;
    const status = response.status === ExitStatus.OK ? AnswerStatus.OK : AnswerStatus.FAULT;
    this.#options.mailbox.answer(sequence, status, response.value, response.data ?? NO_DATA);
  }
  #release(): void {
    if (this.#waiting === 0) return;
    const sequence = this.#waiting;
    this.#waiting = 0;
    this.#options.mailbox.answer(sequence, FAULT.status, FAULT.value);
  }
}
