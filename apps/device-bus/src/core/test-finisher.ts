/**
 * SiFive test finisher (sifive,test0): one 32-bit register that ends the machine. Low half: what, high half: exit code.
 *
 *   0x0000 FINISHER   0x5555 pass · 0x3333 | code << 16 fail · 0x7777 reset
 */
import type { AccessBytes, MmioDevice } from "./bus.ts";

const FINISHER_PASS = 0x5555;
const FINISHER_FAIL = 0x3333;
const FINISHER_RESET = 0x7777;

export interface FinisherEvents {
  powerOff(exitCode: number, reason: string): void;
  reset(reason: string): void;
}

export class TestFinisher implements MmioDevice {
  readonly #events: FinisherEvents;
  constructor(events: FinisherEvents) {
    this.#events = events;
  }

  read(): number {
    return 0;
  }

  write(offset: number, bytes: AccessBytes, value: number): boolean {
    if (offset !== 0 || bytes === 1) return false;
    switch (value & 0xffff) {
      case FINISHER_PASS:
        this.#events.powerOff(0, "test finisher: pass");
        return true;
      case FINISHER_FAIL: {
        // A failure without a code must not look like a success.
        const code = value >>> 16 || 1;
        this.#events.powerOff(code, `test finisher: fail with code ${code}`);
        return true;
      }
      case FINISHER_RESET:
        this.#events.reset("test finisher: reset");
        return true;
      default:
        return false;
    }
  }
}
