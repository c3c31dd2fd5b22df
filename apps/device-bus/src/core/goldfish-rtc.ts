/**
 * Goldfish real-time clock (Linux drivers/rtc/rtc-goldfish.c; Android "Goldfish virtual hardware"). Nanoseconds since
 * 1970, as two 32-bit halves.
 *
 *   0x00 TIME_LOW        read latches TIME_HIGH; write: with TIME_HIGH sets the clock
 *   0x04 TIME_HIGH
 *   0x08 ALARM_LOW       write arms the alarm at ALARM_HIGH:ALARM_LOW
 *   0x0c ALARM_HIGH
 *   0x10 IRQ_ENABLED
 *   0x14 CLEAR_ALARM
 *   0x18 ALARM_STATUS    1 = armed
 *   0x1c CLEAR_INTERRUPT
 */
import type { SavedRtc } from "@polyvisor/contracts/device";
import type { AccessBytes, MmioDevice } from "./bus.ts";

const TIME_LOW = 0x00;
const TIME_HIGH = 0x04;
const ALARM_LOW = 0x08;
const ALARM_HIGH = 0x0c;
const IRQ_ENABLED = 0x10;
const CLEAR_ALARM = 0x14;
const ALARM_STATUS = 0x18;
const CLEAR_INTERRUPT = 0x1c;

const NS_PER_MS = 1_000_000n;
/** Timers take a 32-bit number of milliseconds; a later alarm is armed again on the way. */
const LONGEST_WAIT_MS = 2 ** 31 - 1;

export interface RtcClock {
  now(): number;
  after(ms: number, run: () => void): () => void;
}

export class GoldfishRtc implements MmioDevice {
  readonly #clock: RtcClock;
  readonly #interrupt: (level: boolean) => void;
  /** Guest time minus host time. */
  #offsetNs = 0n;
  #latchedHigh = 0;
  #alarmNs = 0n;
  #alarmHigh = 0;
  #armed = false;
  #interruptEnabled = false;
  #pending = false;
  #cancel: () => void = () => {};

  constructor(clock: RtcClock, interrupt: (level: boolean) => void) {
    this.#clock = clock;
    this.#interrupt = interrupt;
  }

  /** The alarm and the interrupt; the clock itself runs on, as one with a battery. */
  reset(): void {
    this.#cancel();
    this.#armed = this.#interruptEnabled = this.#pending = false;
    this.#interrupt(false);
  }

  save(): SavedRtc {
    return {
      offsetNs: BigInt.asIntN(64, this.#offsetNs), latchedHigh: this.#latchedHigh, alarmNs: BigInt.asUintN(64, this.#alarmNs), alarmHigh: this.#alarmHigh,
      armed: this.#armed, interruptEnabled: this.#interruptEnabled, pending: this.#pending,
    };
  }
  /** The clock shows the time that it is now, not that of the save (ADR 65): an alarm that is past rings. */
  restore(saved: SavedRtc): void {
    this.#offsetNs = saved.offsetNs;
    this.#latchedHigh = saved.latchedHigh;
    this.#alarmNs = saved.alarmNs;
    this.#alarmHigh = saved.alarmHigh;
    this.#armed = saved.armed;
    this.#interruptEnabled = saved.interruptEnabled;
    this.#pending = saved.pending;
    if (this.#armed) this.#wait();
    this.#drive();
  }

  read(offset: number, bytes: AccessBytes): number | undefined {
    if (bytes !== 4) return undefined;
    switch (offset) {
      case TIME_LOW: {
        const now = this.#nowNs();
        this.#latchedHigh = Number((now >> 32n) & 0xffff_ffffn);
        return Number(now & 0xffff_ffffn);
      }
      case TIME_HIGH:
        return this.#latchedHigh;
      case ALARM_LOW:
        return Number(this.#alarmNs & 0xffff_ffffn);
      case ALARM_HIGH:
        return Number(this.#alarmNs >> 32n);
      case IRQ_ENABLED:
        return this.#interruptEnabled ? 1 : 0;
      case ALARM_STATUS:
        return this.#armed ? 1 : 0;
      default:
        return 0;
    }
  }

  write(offset: number, bytes: AccessBytes, value: number): boolean {
    if (bytes !== 4) return false;
    switch (offset) {
      case TIME_LOW:
        this.#setTime((this.#nowNs() & ~0xffff_ffffn) | BigInt(value));
        return true;
      case TIME_HIGH:
        this.#setTime((BigInt(value) << 32n) | (this.#nowNs() & 0xffff_ffffn));
        return true;
      case ALARM_LOW:
        this.#alarmNs = (BigInt(this.#alarmHigh) << 32n) | BigInt(value);
        this.#armed = true;
        this.#wait();
        return true;
      case ALARM_HIGH:
        this.#alarmHigh = value;
        return true;
      case IRQ_ENABLED:
        this.#interruptEnabled = (value & 1) !== 0;
        this.#drive();
        return true;
      case CLEAR_ALARM:
        this.#armed = false;
        this.#cancel();
        return true;
      case CLEAR_INTERRUPT:
        this.#pending = false;
        this.#drive();
        return true;
      default:
        return false;
    }
  }

  #nowNs(): bigint {
    return BigInt.asUintN(64, BigInt(Math.floor(this.#clock.now() * 1000)) * 1000n + this.#offsetNs);
  }

  #setTime(ns: bigint): void {
    this.#offsetNs += ns - this.#nowNs();
    if (this.#armed) this.#wait();
  }

  #wait(): void {
    this.#cancel();
    const remainingMs = (this.#alarmNs - this.#nowNs() + NS_PER_MS - 1n) / NS_PER_MS;
    if (remainingMs <= 0n) return this.#ring();
    const waitMs = remainingMs > LONGEST_WAIT_MS ? LONGEST_WAIT_MS : Number(remainingMs);
    this.#cancel = this.#clock.after(waitMs, () => this.#wait());
  }

  #ring(): void {
    this.#armed = false;
    this.#pending = true;
    this.#drive();
  }

  #drive(): void {
    this.#interrupt(this.#pending && this.#interruptEnabled);
  }
}
