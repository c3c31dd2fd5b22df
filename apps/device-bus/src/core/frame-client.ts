import type { Channel } from "@polyvisor/contracts";
import type { Frame, FrameBatch, NetworkPort } from "@polyvisor/contracts/network";
import { completeFrame } from "@polyvisor/wire";

/** Frames that may wait for the guest; also the credit that the fabric starts with. */
export const RECEIVE_CREDIT = 256;
/** Credit is given back in lumps, not frame by frame. */
const CREDIT_LUMP = 32;

export interface FrameListener {
  /** Frames from the network; the listener gives each back with `consumed`. */
  received(frames: Frame[]): void;
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
  #takesOffload = false;
  #fabricTakesOffload = false;
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
  send(frames: Frame[]): void {
    // A fabric that takes no offload gets whole frames; more of them than were asked for cost credit that is not there.
    const whole = this.#fabricTakesOffload ? frames : frames.flatMap(({ data, offload }) => (completeFrame(data, offload) ?? []).map((each) => ({ data: each, offload: undefined })));
    const sent = whole.slice(0, this.#sendCredit);
    this.#sendCredit -= sent.length;
    this.sentFrames += sent.length;
    this.#send(sent, this.#takeConsumed(1));
  }

  /** Whether the guest's driver takes frames with offload left to do (NET-6); said in every batch from now on. */
  setTakesOffload(takesOffload: boolean): void {
    if (this.#takesOffload === takesOffload) return;
    this.#takesOffload = takesOffload;
    this.#say([], this.#takeConsumed(1));
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

  #send(frames: Frame[], credit: number): void {
    if (frames.length > 0 || credit > 0) this.#say(frames, credit);
  }
  #say(frames: Frame[], credit: number): void {
    this.#channel.send({
      machine: this.#machine,
      port: this.#port,
      frames,
      credit,
      linkUp: true,
      takesOffload: this.#takesOffload,
    });
  }

  #received(batch: FrameBatch): void {
    this.#fabricTakesOffload = batch.takesOffload;
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
      if (this.#listener) this.#listener.received(accepted);
      else this.consumed(accepted.length);
    }
    if (batch.credit > 0) this.#listener?.writable();
  }
}
