import type { LinuxCalls } from "./linux-calls.ts";

/** struct pollfd: int fd; short events; short revents (poll(2)). */
const POLLFD_BYTES = 8;
const POLLIN = 1;
/** A blocked poll cannot be interrupted by the garbage collector or by us: it looks around so often. */
const POLL_MS = 10_000;
/** After the last frame, reading goes on for so long: an answer often follows within a round trip. */
const LINGER_MS = 0.2;

/**
 * Says when file descriptors can be read that libuv does not watch (a TAP's). One `poll` waits for all of them on a
 * thread of the pool; an eventfd wakes it when the set changes.
 */
export class FdPoller {
  readonly #calls: LinuxCalls;
  readonly #readers = new Map<number, () => boolean>();
  readonly #wake: number;
  #polling = false;
  /** To be closed once no poll can be looking at them: a number that is used again must not be polled as the old one. */
  #closing: number[] = [];

  constructor(calls: LinuxCalls) {
    this.#calls = calls;
    this.#wake = calls.eventfd(0, 0o4000); // EFD_NONBLOCK
  }
  /** `drain` reads what is there, at most a turn's worth; true: there was something. */
  add(fd: number, drain: () => boolean): void {
    this.#readers.set(fd, drain);
    if (this.#polling) this.#interrupt();
    else void this.#run();
  }
  /** The descriptor is closed as soon as it may be. */
  remove(fd: number): void {
    this.#readers.delete(fd);
    if (!this.#polling) return void this.#calls.close(fd);
    this.#closing.push(fd);
    this.#interrupt();
  }

  #interrupt(): void {
    this.#calls.write(this.#wake, new Uint8Array(new BigUint64Array([1n]).buffer), 8);
  }
  async #run(): Promise<void> {
    this.#polling = true;
    while (this.#readers.size > 0) {
      const fds = [this.#wake, ...this.#readers.keys()];
      const set = Buffer.alloc(fds.length * POLLFD_BYTES);
      fds.forEach((fd, i) => {
        set.writeInt32LE(fd, i * POLLFD_BYTES);
        set.writeInt16LE(POLLIN, i * POLLFD_BYTES + 4);
      });
      await this.#calls.poll(set, fds.length, POLL_MS);
      for (const fd of this.#closing.splice(0)) this.#calls.close(fd);
      if (set.readInt16LE(6) !== 0) this.#calls.read(this.#wake, new Uint8Array(8), 8);
      const readable = fds.filter((_, i) => i > 0 && set.readInt16LE(i * POLLFD_BYTES + 6) !== 0);
      // As long as there is more, reading without asking is cheaper than the pool's round trip; others get their turns between.
      for (let until = performance.now() + LINGER_MS; readable.length > 0 && performance.now() < until; ) {
        for (const fd of readable) if (this.#readers.get(fd)?.() ?? false) until = performance.now() + LINGER_MS;
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    this.#polling = false;
    for (const fd of this.#closing.splice(0)) this.#calls.close(fd);
    if (this.#readers.size > 0) void this.#run();
  }
}
