/** Bytes of standard input in one IN line: its base64 and the head fit the guest's 4096-byte terminal buffer. */
export const STDIN_PIECE_BYTES = 2880;
/** Pieces that may wait here before who writes is asked to pause; also more than any agent asks for at a time. */
const MOST_WAITING = 16;

/** What a command's end of the agent's protocol sends. */
export type SendLine = (line: string) => void;

/** One command that runs in the guest: its standard input by pieces that the agent acknowledges, its output, its end. */
export class GuestCommand {
  readonly id: string;
  /** Exit status; rejects when the guest cannot tell any more. */
  readonly ended: Promise<number>;
  readonly onOutput: (stream: "stdout" | "stderr", data: Uint8Array) => void;
  resolve!: (status: number) => void;
  reject!: (error: Error) => void;
  readonly #send: SendLine;
  readonly #pieces: Uint8Array[] = [];
  /** Pieces that the agent is ready to take. */
  #credit = 0;
  #inputEnds = false;
  #over = false;
  #drained: () => void = () => {};

  constructor(id: string, send: SendLine, onOutput: GuestCommand["onOutput"]) {
    this.id = id;
    this.#send = send;
    this.onOutput = onOutput;
    this.ended = new Promise<number>((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    }).finally(() => (this.#over = true));
  }

  /** Queues standard input. False: enough is waiting, go on when `onDrain` calls. */
  write(data: Uint8Array): boolean {
    for (let at = 0; at < data.length; at += STDIN_PIECE_BYTES) this.#pieces.push(data.subarray(at, at + STDIN_PIECE_BYTES));
    this.#pump();
    return this.#pieces.length < MOST_WAITING;
  }
  /** No more standard input. */
  endInput(): void {
    this.#inputEnds = true;
    this.#pump();
  }
  onDrain(listener: () => void): void {
    this.#drained = listener;
  }
  /** The agent is ready for more pieces; it says so at first, and when it has handed one to the command. */
  acknowledged(pieces: number): void {
    if (!(pieces >= 1)) return;
    this.#credit = Math.min(this.#credit + Math.trunc(pieces), MOST_WAITING);
    this.#pump();
    if (this.#pieces.length < MOST_WAITING) this.#drained();
  }
  /** Ends the command's session: SIGTERM, and SIGKILL to what is left of it after two seconds. */
  kill(): void {
    if (!this.#over) this.#send(`KILL ${this.id}`);
  }

  #pump(): void {
    for (; this.#credit > 0 && this.#pieces.length > 0; this.#credit--) {
      this.#send(`IN ${this.id} ${Buffer.from(this.#pieces.shift()!).toString("base64")}`);
    }
    if (!this.#inputEnds || this.#pieces.length > 0 || this.#credit === 0) return;
    this.#inputEnds = false;
    this.#send(`EOF ${this.id}`);
  }
}
