import type { CpuPort } from "@polyvisor/contracts/cpu";

/** A debugger's end of a Debug stream: sends packets, waits for answers. Console output of `monitor` is collected apart. */
export class GdbClient {
  readonly console: string[] = [];
  closedBy: string | undefined;
  readonly #channel: ReturnType<CpuPort["debug"]>;
  readonly #machine: string;
  readonly #answers: string[] = [];
  #waiting: ((answer: string) => void) | undefined;

  constructor(cpu: CpuPort, machine: string) {
    this.#machine = machine;
    this.#channel = cpu.debug();
    this.#channel.onMessage(({ packet }) => {
      const text = Buffer.from(packet).toString("latin1");
      if (/^O[0-9a-f]/.test(text)) return void this.console.push(Buffer.from(text.slice(1), "hex").toString());
      if (!this.#waiting) return void this.#answers.push(text);
      const waiting = this.#waiting;
      this.#waiting = undefined;
      waiting(text);
    });
    this.#channel.onClose((error) => (this.closedBy = error?.condition ?? "closed"));
  }
  send(packet: string): void {
    this.#channel.send({ machine: this.#machine, packet: Buffer.from(packet, "latin1") });
  }
  /** The next packet from the other side. */
  next(): Promise<string> {
    const answer = this.#answers.shift();
    if (answer !== undefined) return Promise.resolve(answer);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("no answer from the debug stub in 8 s")), 8000);
      this.#waiting = (text) => {
        clearTimeout(timer);
        resolve(text);
      };
    });
  }
  ask(packet: string): Promise<string> {
    this.send(packet);
    return this.next();
  }
  async register(number: number): Promise<bigint> {
    return Buffer.from(await this.ask(`p${number.toString(16)}`), "hex").readBigUInt64LE();
  }
  async monitor(command: string): Promise<string> {
    this.console.length = 0;
    await this.ask(`qRcmd,${Buffer.from(command).toString("hex")}`);
    return this.console.join("");
  }
  close(): void {
    this.#channel.close();
  }
}
