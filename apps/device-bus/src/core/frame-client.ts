import type { Channel } from "@polyvisor/contracts";
import type { FrameBatch, NetworkPort } from "@polyvisor/contracts/network";

/** Frames that may wait for the guest; also the credit that the fabric starts with. */
export const RECEIVE_CREDIT = 256;
/** Credit is given back in lumps, not frame by frame. */
const CREDIT_LUMP = 32;

export interface FrameListener {
  /** Frames from the network; the listener gives each back with `consumed`. */
  received(frames: Uint8Array[]): void;
  /** There is credit to send again. */
  writable(): void;
  linkChanged(up: boolean): void;
}

/** One NIC's stream to its port at the network-fabric, with credit in both directions. */
export class FrameClient {
  readonly #machine: string;
  readonly #port: string;
  readonly #channel: Channel<FrameBatch, FrameBatch>;
  #listener: FrameListener | undefined;
  #sendCredit = 0;
  #consumed = 0;
  #outstanding = RECEIVE_CREDIT;
  #linkUp = false;
  #closed = false;
  receivedFrames = 0;
  sentFrames = 0;
  overrunFrames = 0;

  constructor(machine: string, port: string, network: NetworkPort, lost: (reason: string) => void) {
    this.#machine = machine;
    this.#port = port;
    this.#channel = network.frames();
    this.#channel.onMessage((batch) => this.#received(batch));
    this.#channel.onClose((error) => {
      if (!this.#closed) lost(`frame stream of port ${port} ended: ${error?.message ?? "closed by the network-fabric"}`);
      this.#closed = true;
    });
    this.#send([], RECEIVE_CREDIT);
  }

  listen(listener: FrameListener): void {
    this.#listener = listener;
    listener.linkChanged(this.#linkUp);
  }

  /** Frames that may be sent now. */
  get credit(): number {
    return this.#sendCredit;
  }

  /** At most `credit` frames. */
  send(frames: Uint8Array[]): void {
    this.#sendCredit -= frames.length;
    this.sentFrames += frames.length;
    this.#send(frames, this.#takeConsumed(1));
  }

  /** The guest (or nobody) has taken this many received frames. */
  consumed(frames: number): void {
    this.#consumed += frames;
    const credit = this.#takeConsumed(CREDIT_LUMP);
    if (credit > 0) this.#send([], credit);
  }

  close(): void {
    this.#closed = true;
    this.#channel.close();
  }

  #takeConsumed(atLeast: number): number {
    if (this.#consumed < atLeast) return 0;
    const credit = this.#consumed;
    this.#consumed = 0;
    this.#outstanding += credit;
    return credit;
  }

  #send(frames: Uint8Array[], credit: number): void {
    if (frames.length === 0 && credit === 0) return;
    this.#channel.send({
      machine: this.#machine,
      port: this.#port,
      frames: frames.map((data) => ({ data, offload: undefined })),
      credit,
      linkUp: true,
      takesOffload: false,
    });
  }

  #received(batch: FrameBatch): void {
    this.#sendCredit = Math.min(this.#sendCredit + batch.credit, 65_536);
    if (batch.linkUp !== this.#linkUp) {
      this.#linkUp = batch.linkUp;
      this.#listener?.linkChanged(batch.linkUp);
    }
    const accepted = batch.frames.slice(0, this.#outstanding);
    this.overrunFrames += batch.frames.length - accepted.length;
    this.#outstanding -= accepted.length;
    this.receivedFrames += accepted.length;
    if (accepted.length > 0) {
      if (this.#listener) this.#listener.received(accepted.map(({ data }) => data));
      else this.consumed(accepted.length);
    }
    if (batch.credit > 0) this.#listener?.writable();
  }
}
