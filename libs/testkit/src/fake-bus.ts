import { ContractError, type Channel, type Implementation } from "@polyvisor/contracts";
import { DEVICE, ExitStatus, type ExitRequest, type ExitResponse } from "@polyvisor/contracts/device";
import { ADDRESS_MAP } from "@polyvisor/machine";

const LSR = 5;
const LCR = 3n;
const DLAB = 0x80; // the divisor latch is at offset 0
const LSR_THR_EMPTY = 0x60;

/**
 * A board small enough to read at a glance, for tests of the cpu-emulator: a UART (transmit only; its other registers read 0), the test finisher, one
 * 64-bit scratch register at SCRATCH, and a counter at COUNTER that grows with every read. Everything else faults.
 */
export class FakeBus {
  static readonly SCRATCH = ADDRESS_MAP.rtc.base;
  static readonly COUNTER = ADDRESS_MAP.rtc.base + 8n;

  /** Exits in the order they arrived, all harts. */
  readonly exits: ExitRequest[] = [];
  /** Keep `exits`; off for benchmarks. */
  record = true;
  /** What the guest wrote to the UART and the SBI console. */
  output = "";
  /** What the SBI console reads. */
  input = "";
  /** Called for an MMIO read; answers are held back until the promise settles. */
  delay: (() => Promise<void>) | undefined;
  /** Called for a settle that waits: what the devices do meanwhile. */
  settle: (() => Promise<void>) | undefined;
  #ended = false;
  readonly #channels = new Set<Channel<ExitResponse, ExitRequest>>();
  readonly #ends: ((code: number) => void)[] = [];
  #lineControl = 0;
  #scratch = 0n;
  #counter = 0n;

  readonly implementation: Implementation<typeof DEVICE.definition> = {
    exits: (channel) => {
      this.#channels.add(channel);
      channel.onClose(() => this.#channels.delete(channel));
      channel.onMessage((request) => this.#exit(channel, request));
    },
  };

  /** Resolves with the code of the next write to the finisher (0 = pass) or SBI reset (-1). */
  ended(): Promise<number> {
    return new Promise((resolve) => this.#ends.push(resolve));
  }
  get openStreams(): number {
    return this.#channels.size;
  }
  /** Ends all exit streams as a crashed device-bus would. */
  breakStreams(): void {
    for (const channel of [...this.#channels]) channel.close(new ContractError("unavailable", "the device-bus is gone"));
  }

  #exit(channel: Channel<ExitResponse, ExitRequest>, request: ExitRequest): void {
    if (this.record) this.exits.push(request);
    const answer = (status: ExitStatus, value = 0n, data = new Uint8Array(0)): void => {
      channel.send({ machine: request.machine, hart: request.hart, id: request.id, status, value, data });
    };
    switch (request.exit?.$case) {
      case "mmioRead": {
        const value = this.#read(request.exit.value.address);
        const reply = (): void => answer(value === undefined ? ExitStatus.ACCESS_FAULT : ExitStatus.OK, value);
        if (this.delay) void this.delay().then(reply);
        else reply();
        return;
      }
      case "mmioWrite":
        return this.#write(request.exit.value.address, request.exit.value.value);
      case "consoleWrite":
        this.output += new TextDecoder("latin1").decode(request.exit.value.data);
        return;
      case "consoleRead": {
        const text = this.input.slice(0, request.exit.value.maxBytes);
        this.input = this.input.slice(text.length);
        return answer(ExitStatus.OK, 0n, new TextEncoder().encode(text));
      }
      case "systemReset":
        return this.#end(-1);
      case "settle": {
        const reply = (): void => answer(ExitStatus.OK, this.#ended ? 0xffff_ffff_ffff_ffffn : 0n);
        if (request.id !== 0n) void (this.settle?.() ?? Promise.resolve()).then(reply);
        return;
      }
      default:
        if (request.id !== 0n) answer(ExitStatus.ACCESS_FAULT); // DEV-5: whoever waits is answered
    }
  }
  #read(address: bigint): bigint | undefined {
    const register = address - ADDRESS_MAP.uart.base;
    if (register >= 0n && register < 8n) return register === BigInt(LSR) ? BigInt(LSR_THR_EMPTY) : 0n;
    if (address === FakeBus.SCRATCH) return this.#scratch;
    if (address === FakeBus.COUNTER) return this.#counter++;
    return undefined;
  }
  #write(address: bigint, value: bigint): void {
    if (address === ADDRESS_MAP.uart.base && !(this.#lineControl & DLAB)) this.output += String.fromCharCode(Number(value & 0xffn));
    else if (address === ADDRESS_MAP.uart.base + LCR) this.#lineControl = Number(value);
    else if (address === FakeBus.SCRATCH) this.#scratch = value;
    else if (address === ADDRESS_MAP.testFinisher.base) {
      const status = Number(value & 0xffffn); // sifive,test0: 0x5555 pass, 0x3333 fail with a code above it
      this.#end(status === 0x5555 ? 0 : Number((value >> 16n) & 0xffffn));
    }
  }
  #end(code: number): void {
    this.#ended = true;
    for (const resolve of this.#ends.splice(0)) resolve(code);
  }
}
