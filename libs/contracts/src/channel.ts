import { asContractError, type ContractError } from "./errors.ts";

/** The sending half of a stream. Messages arrive in order; nothing arrives after `close`. */
export interface Sink<S> {
  /** Queues a message. False: the peer is slow; wait for `onDrain` before sending much more. Ignored once closed. */
  send(message: S): boolean;
  /** Called when a full buffer has emptied. */
  onDrain(listener: () => void): void;
  /** Ends the stream for both sides; with an error the peer's `onClose` gets it. Idempotent. */
  close(error?: ContractError): void;
  /** Called once, when either side has closed; at once if it already has. */
  onClose(listener: (error?: ContractError) => void): void;
  readonly closed: boolean;
}

/**
 * One end of a typed stream. In the local adapter delivery is synchronous: `send` may call the peer's listener,
 * which may answer, before it returns. Messages that arrive before `onMessage` is called are kept for it.
 */
export interface Channel<S, R> extends Sink<S> {
  onMessage(listener: (message: R) => void): void;
  /**
   * Flow control by the receiver: `slow(true)` makes the peer's `send` answer false until `slow(false)`, which fires
   * its `onDrain`. A hint: what is sent meanwhile still arrives.
   */
  slow(isSlow: boolean): void;
}

class End<S, R> implements Channel<S, R> {
  peer!: End<R, S>;
  closed = false;
  #error: ContractError | undefined;
  #listener: ((message: R) => void) | undefined;
  #early: R[] = [];
  #slow = false;
  #drainListeners: (() => void)[] = [];
  #closeListeners: ((error?: ContractError) => void)[] = [];

  send(message: S): boolean {
    if (this.closed) return false;
    this.peer.receive(message);
    return !this.peer.#slow;
  }
  receive(message: R): void {
    if (!this.#listener || this.#early.length > 0) return void this.#early.push(message);
    // What a listener throws ends this stream, as it does in the gRPC adapter; it never reaches the sender.
    try {
      this.#listener(message);
    } catch (error) {
      this.close(asContractError(error));
    }
  }
  onMessage(listener: (message: R) => void): void {
    this.#listener = listener;
    // A listener may cause further messages while the kept ones are replayed: they queue behind, in order.
    for (let i = 0; i < this.#early.length; i++) {
      try {
        listener(this.#early[i] as R);
      } catch (error) {
        this.close(asContractError(error));
        break;
      }
    }
    this.#early = [];
  }
  onDrain(listener: () => void): void {
    this.#drainListeners.push(listener);
  }
  slow(isSlow: boolean): void {
    const drained = this.#slow && !isSlow;
    this.#slow = isSlow;
    if (drained) for (const listener of this.peer.#drainListeners) listener();
  }
  close(error?: ContractError): void {
    if (this.closed) return;
    this.ended(error);
    this.peer.ended(error);
  }
  ended(error?: ContractError): void {
    if (this.closed) return;
    this.closed = true;
    this.#error = error;
    const listeners = this.#closeListeners;
    this.#closeListeners = [];
    for (const listener of listeners) listener(error);
  }
  onClose(listener: (error?: ContractError) => void): void {
    if (this.closed) listener(this.#error);
    else this.#closeListeners.push(listener);
  }
}

/** Two connected ends in one process. */
export function channelPair<A, B>(): [Channel<A, B>, Channel<B, A>] {
  const left = new End<A, B>();
  const right = new End<B, A>();
  left.peer = right;
  right.peer = left;
  return [left, right];
}

/** Reads a channel as an async iterable (clients and tests; not for hot planes). */
export async function* messages<R>(channel: Channel<never, R>): AsyncGenerator<R, void, void> {
  const queue: R[] = [];
  let wake: (() => void) | undefined;
  let end: { error?: ContractError | undefined } | undefined;
  channel.onMessage((message) => {
    queue.push(message);
    wake?.();
  });
  channel.onClose((error) => {
    end = { error };
    wake?.();
  });
  try {
    for (;;) {
      while (queue.length > 0) yield queue.shift() as R;
      if (end) {
        if (end.error) throw asContractError(end.error);
        return;
      }
      await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    channel.close();
  }
}
