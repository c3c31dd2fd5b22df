import type { Worker } from "node:worker_threads";

/**
 * At most one thread that has loaded its code and waits to be told what to do. To start one takes 0.2 s on a quiet machine and
 * twice that on a busy one, of which a machine's start should not consist.
 */
export class SpareThread {
  readonly #start: () => Worker;
  #spare: Worker | undefined;

  /** `start` makes a thread that waits for its first message. */
  constructor(start: () => Worker) {
    this.#start = start;
  }

  /** Has one ready from some time on. It does not keep the process alive. */
  keep(): void {
    if (this.#spare) return;
    const worker = this.#start();
    this.#spare = worker;
    worker.unref();
    const gone = (): void => {
      if (this.#spare === worker) this.#spare = undefined;
    };
    worker.once("error", gone); // whoever takes the next one will see the same error
    worker.once("exit", gone);
  }
  /** The one that is kept, or a new one. */
  take(): Worker {
    const worker = this.#spare ?? this.#start();
    this.#spare = undefined;
    worker.ref();
    return worker;
  }
  async drop(): Promise<void> {
    const worker = this.#spare;
    this.#spare = undefined;
    await worker?.terminate();
  }
}
