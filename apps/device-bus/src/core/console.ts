import type { Sink } from "@polyvisor/contracts";
import type { ConsoleOutput } from "@polyvisor/contracts/device";

/** Output is handed to clients this much later, so that a guest that prints byte by byte makes few messages. */
const FLUSH_MS = 1;
/** ... or as soon as so much waits. */
const FLUSH_BYTES = 4096;
const MAX_MESSAGE_BYTES = 64 * 1024;

export interface ConsoleOptions {
  machine: string;
  name: string;
  ringBytes: number;
  /** Input that the guest has not fetched; more is dropped and counted. */
  inputBytes: number;
  after(ms: number, run: () => void): () => void;
}

interface Client {
  readonly out: Sink<ConsoleOutput>;
  /** Count of output bytes of the console that this client has been sent (or has lost). */
  position: number;
  waiting: boolean;
}

/**
 * The host's side of one guest console: a ring with the last output, any number of clients, and the input that
 * waits for the guest. Slow clients read from the ring at their own pace; what the ring forgot is lost for them.
 */
export class Console {
  readonly name: string;
  readonly #options: ConsoleOptions;
  readonly #ring: Uint8Array;
  /** Bytes ever written; the ring holds the last `ringBytes` of them. */
  #written = 0;
  #flushed = 0;
  #cancelFlush: (() => void) | undefined;
  readonly #clients = new Set<Client>();
  readonly #input: Uint8Array;
  #inputStart = 0;
  #inputLength = 0;
  #onInput: () => void = () => {};
  inputBytesTaken = 0;
  inputBytesDropped = 0;
  outputBytesLost = 0;

  constructor(options: ConsoleOptions) {
    this.name = options.name;
    this.#options = options;
    this.#ring = new Uint8Array(options.ringBytes);
    this.#input = new Uint8Array(options.inputBytes);
  }

  /** The device that reads this console: called when input arrives. */
  onInput(listener: () => void): void {
    this.#onInput = listener;
  }

  writeByte(byte: number): void {
    this.#ring[this.#written++ % this.#ring.length] = byte;
    this.#schedule();
  }

  write(bytes: Uint8Array): void {
    for (const byte of bytes) this.#ring[this.#written++ % this.#ring.length] = byte;
    this.#schedule();
  }

  /** Hands waiting output to the clients now. */
  flush(): void {
    this.#cancelFlush?.();
    this.#cancelFlush = undefined;
    this.#flushed = this.#written;
    for (const client of this.#clients) this.#pump(client);
  }

  attach(out: Sink<ConsoleOutput>, replay: boolean): void {
    const oldest = Math.max(0, this.#written - this.#ring.length);
    const client: Client = { out, position: replay ? oldest : this.#written, waiting: false };
    this.#clients.add(client);
    out.onDrain(() => {
      client.waiting = false;
      this.#pump(client);
    });
    out.onClose(() => void this.#clients.delete(client));
    this.flush();
  }

  /** Keeps input for the guest; what does not fit is dropped. */
  input(bytes: Uint8Array): void {
    const capacity = this.#input.length;
    const taken = Math.min(bytes.length, capacity - this.#inputLength);
    for (let index = 0; index < taken; index++) {
      this.#input[(this.#inputStart + this.#inputLength + index) % capacity] = bytes[index]!;
    }
    this.#inputLength += taken;
    this.inputBytesTaken += taken;
    this.inputBytesDropped += bytes.length - taken;
    if (taken > 0) this.#onInput();
  }

  get inputLength(): number {
    return this.#inputLength;
  }

  takeInputByte(): number {
    const byte = this.#input[this.#inputStart]!;
    this.#inputStart = (this.#inputStart + 1) % this.#input.length;
    this.#inputLength--;
    return byte;
  }

  takeInput(maxBytes: number): Uint8Array {
    const bytes = new Uint8Array(Math.min(maxBytes, this.#inputLength));
    for (let index = 0; index < bytes.length; index++) bytes[index] = this.takeInputByte();
    return bytes;
  }

  /** Input that waits, and the ring's content, oldest first. */
  save(): { input: Uint8Array; output: Uint8Array } {
    const input = new Uint8Array(this.#inputLength).map((_, index) => this.#input[(this.#inputStart + index) % this.#input.length]!);
    const length = Math.min(this.#written, this.#ring.length);
    const output = new Uint8Array(length).map((_, index) => this.#ring[(this.#written - length + index) % this.#ring.length]!);
    return { input, output };
  }
  /** Of a console that nobody has used. What does not fit is dropped. The device looks at its input when it goes on. */
  restore({ input, output }: { input: Uint8Array; output: Uint8Array }): void {
    this.write(output.subarray(Math.max(0, output.length - this.#ring.length)));
    const taken = Math.min(input.length, this.#input.length);
    this.#input.set(input.subarray(0, taken));
    this.#inputStart = 0;
    this.#inputLength = taken;
  }

  counters(): Record<string, number> {
    return {
      [`${this.name}.output-bytes`]: this.#written,
      [`${this.name}.output-lost`]: this.outputBytesLost,
      [`${this.name}.input-bytes`]: this.inputBytesTaken,
      [`${this.name}.input-dropped`]: this.inputBytesDropped,
      [`${this.name}.clients`]: this.#clients.size,
    };
  }

  /** The board goes away: last output, then the end of every stream. */
  close(): void {
    this.flush();
    for (const client of this.#clients) client.out.close();
    this.#clients.clear();
  }

  #schedule(): void {
    if (this.#written - this.#flushed >= FLUSH_BYTES) this.flush();
    else this.#cancelFlush ??= this.#options.after(FLUSH_MS, () => this.flush());
  }

  #pump(client: Client): void {
    const oldest = this.#written - this.#ring.length;
    if (client.position < oldest) {
      this.outputBytesLost += oldest - client.position;
      client.position = oldest;
    }
    while (!client.waiting && client.position < this.#flushed && !client.out.closed) {
      const length = Math.min(this.#flushed - client.position, MAX_MESSAGE_BYTES);
      const data = new Uint8Array(length);
      const start = client.position % this.#ring.length;
      const untilEnd = Math.min(length, this.#ring.length - start);
      data.set(this.#ring.subarray(start, start + untilEnd));
      data.set(this.#ring.subarray(0, length - untilEnd), untilEnd);
      client.position += length;
      client.waiting = !client.out.send({ machine: this.#options.machine, console: this.name, data }) && !client.out.closed;
    }
  }
}
