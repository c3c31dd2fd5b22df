import type { Channel, ContractError } from "@polyvisor/contracts";
import type { Frame, FrameBatch } from "@polyvisor/contracts/network";
import type { FramePort, Line } from "./frame-port.ts";

/** Frames that a guest may send ahead of our saying so again. */
export const RECEIVE_CREDIT = 256;
/** Credit that a peer can pile up. */
const MAX_SEND_CREDIT = 65_536;

/** A NIC's stream of the contract: credit in both directions. */
export class ChannelLine implements Line {
  readonly #port: FramePort;
  readonly #channel: Channel<FrameBatch, FrameBatch>;
  takesOffload = false;
  #sendCredit = 0;
  /** What the peer may still send. */
  #receiveCredit = RECEIVE_CREDIT;
  /** Taken from the credit, not given back yet. */
  #owedCredit = 0;

  /** Says the first credit. */
  constructor(port: FramePort, channel: Channel<FrameBatch, FrameBatch>) {
    this.#port = port;
    this.#channel = channel;
    port.connect(this);
    this.#say([], RECEIVE_CREDIT);
  }
  get ready(): number {
    return this.#sendCredit;
  }
  receive({ frames, credit, takesOffload }: FrameBatch): void {
    this.takesOffload = takesOffload;
    this.#sendCredit = Math.min(this.#sendCredit + credit, MAX_SEND_CREDIT);
    for (const frame of frames) {
      if (this.#receiveCredit === 0) {
        this.#port.counters.rx_dropped_credit++;
        continue;
      }
      this.#receiveCredit--;
      this.#owedCredit++;
      this.#port.ingress(frame);
    }
  }
  send(frames: Frame[], waiting: number): void {
    this.#sendCredit -= frames.length;
    this.#say(frames, this.#takeOwed(waiting));
  }
  /** Without frames to send, credit goes back in large pieces: a message of its own costs as much as a batch. */
  settle(waiting: number): void {
    if (this.#owedCredit - waiting >= RECEIVE_CREDIT / 4) this.#say([], this.#takeOwed(waiting));
  }
  linkChanged(): void {
    this.#say([], 0);
  }
  /** Ends the stream; the port stays. */
  close(error?: ContractError): void {
    this.#port.disconnect(this);
    this.#channel.close(error);
  }

  #takeOwed(waiting: number): number {
    const owed = Math.max(0, this.#owedCredit - waiting);
    this.#owedCredit -= owed;
    this.#receiveCredit += owed;
    return owed;
  }
  #say(frames: Frame[], credit: number): void {
    const { machine, id, linkUp } = this.#port.info;
    this.#channel.send({ machine, port: id, frames, credit, linkUp, takesOffload: true });
  }
}
