import type { Channel } from "@polyvisor/contracts";
import type { Frame, FrameBatch, NetworkPort } from "@polyvisor/contracts/network";
import type { Clock } from "@polyvisor/service-kit";
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

/** A fabric that is gone is called again after so long, then after twice as long, and so on. */
const RECONNECT_MS = { first: 50, most: 2000 } as const;

export interface FrameClientOptions {
  readonly machine: string;
  readonly port: string;
  readonly network: NetworkPort;
  readonly clock: Pick<Clock, "after">;
  /** The stream is gone for good. */
  readonly lost: (reason: string) => void;
}

/** One NIC's stream to its port at the network-fabric, with credit in both directions. */
export class FrameClient {
  readonly #machine: string;
  readonly #port: string;
  readonly #network: NetworkPort;
  readonly #clock: Pick<Clock, "after">;
  readonly #lost: (reason: string) => void;
  #channel!: Channel<FrameBatch, FrameBatch>;
  #wasConnected = false;
  #retryMs: number = RECONNECT_MS.first;
  #cancelRetry: (() => void) | undefined;
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

  constructor({ machine, port, network, clock, lost }: FrameClientOptions) {
    this.#machine = machine;
    this.#port = port;
    this.#network = network;
    this.#clock = clock;
    this.#lost = lost;
    this.#connect();
  }
  /**
   * A fabric that has gone (restarted, killed) is looked for until it is back: to the guest its cable was pulled. A stream that
   * was refused, or taken over by another, is lost for good.
   */
  #connect(): void {
    const channel = this.#network.frames();
    this.#channel = channel;
    let answered = false;
    channel.onMessage((batch) => {
      answered = true;
      this.#retryMs = RECONNECT_MS.first;
      this.#received(batch);
    });
    channel.onClose((error) => {
      if (this.#closed || channel !== this.#channel) return;
      const hopeless = error?.condition === "conflict" || error?.condition === "invalid" || !(answered || this.#wasConnected);
      if (hopeless) {
        this.#closed = true;
        return this.#lost(`frame stream of port ${this.#port} ended: ${error?.message ?? "closed by the network-fabric"}`);
      }
      this.#sendCredit = 0;
      this.#setLink(false);
      this.#cancelRetry = this.#clock.after(this.#retryMs, () => this.#connect());
      this.#retryMs = Math.min(this.#retryMs * 2, RECONNECT_MS.most);
    });
    // The guest's buffers are as they were: what it has not taken yet still counts against the first credit.
    const waiting = RECEIVE_CREDIT - this.#outstanding - this.#consumed;
    this.#consumed = 0;
    this.#outstanding = RECEIVE_CREDIT - waiting;
    this.#say([], this.#outstanding);
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
    this.#cancelRetry?.();
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

  #setLink(up: boolean): void {
    if (up === this.#linkUp) return;
    this.#linkUp = up;
    this.#listener?.linkChanged(up);
  }
  #received(batch: FrameBatch): void {
    this.#fabricTakesOffload = batch.takesOffload;
    this.#sendCredit = Math.min(this.#sendCredit + batch.credit, 65_536);
    this.#wasConnected = true;
    this.#setLink(batch.linkUp);
    const accepted = batch.frames.slice(0, this.#outstanding);
    this.overrunFrames += batch.frames.length - accepted.length;
    this.#outstanding -= accepted.length;
    this.receivedFrames += accepted.length;
    // Those that a rule took away on their way are empty: they count for credit alone (NET-5).
    const real = accepted.filter(({ data }) => data.length > 0);
    if (real.length > 0 && this.#listener) this.#listener.received(real);
    const nobodys = this.#listener ? accepted.length - real.length : accepted.length;
    if (nobodys > 0) this.consumed(nobodys);
    if (batch.credit > 0) this.#listener?.writable();
  }
}
