/**
 * 16550A UART (National Semiconductor PC16550D data sheet), registers one byte apart.
 *
 *        read                     write                    with LCR.DLAB
 *   0    RBR receive buffer       THR transmit holding     DLL divisor low
 *   1    IER interrupt enable     IER                      DLM divisor high
 *   2    IIR interrupt identity   FCR FIFO control
 *   3    LCR line control         LCR
 *   4    MCR modem control        MCR
 *   5    LSR line status          –
 *   6    MSR modem status         –
 *   7    SCR scratch              SCR
 *
 * The line is infinitely fast: what is written to THR is out at once, so THR is always empty.
 */
import type { AccessBytes, MmioDevice } from "./bus.ts";
import type { SavedUart } from "@polyvisor/contracts/device";
import type { Console } from "./console.ts";

const RBR_THR_DLL = 0;
const IER_DLM = 1;
const IIR_FCR = 2;
const LCR = 3;
const MCR = 4;
const LSR = 5;
const MSR = 6;
const SCR = 7;

const IER_RDI = 1 << 0; // received data available
const IER_THRI = 1 << 1; // transmit holding register empty
const IER_RLSI = 1 << 2; // receiver line status
const IER_MSI = 1 << 3; // modem status
const IER_MASK = 0x0f;

const IIR_NONE = 0x01;
const IIR_RLSI = 0x06; // priority 1, cleared by reading LSR
const IIR_RDI = 0x04; // priority 2, cleared by reading RBR below the trigger level
const IIR_TIMEOUT = 0x0c; // priority 2: data below the trigger level that nobody fetched
const IIR_THRI = 0x02; // priority 3, cleared by reading IIR or writing THR
const IIR_MSI = 0x00; // priority 4, cleared by reading MSR
const IIR_FIFOS = 0xc0;

const FCR_ENABLE = 1 << 0;
const FCR_CLEAR_RECEIVE = 1 << 1;
const FCR_TRIGGER_LEVELS = [1, 4, 8, 14] as const;

const LCR_DLAB = 1 << 7;
const MCR_LOOP = 1 << 4;
const MCR_MASK = 0x1f;

const LSR_DR = 1 << 0; // data ready
const LSR_OE = 1 << 1; // overrun
const LSR_THRE = 1 << 5; // transmit holding register empty
const LSR_TEMT = 1 << 6; // transmitter empty

/** CTS, DSR and DCD on: somebody is always there. */
const MSR_CONNECTED = 0xb0;
const FIFO_BYTES = 16;

export class Uart16550 implements MmioDevice {
  readonly #console: Console;
  readonly #interrupt: (level: boolean) => void;
  readonly #fifo = new Uint8Array(FIFO_BYTES);
  #fifoStart = 0;
  #fifoLength = 0;
  #ier = 0;
  #fcr = 0;
  #lcr = 0x03;
  #mcr = 0;
  #msr = MSR_CONNECTED;
  #scr = 0;
  #dll = 0x0c;
  #dlm = 0;
  #overrun = false;
  #thriPending = false;
  #interruptLevel = false;
  #held = false;

  constructor(console: Console, interrupt: (level: boolean) => void) {
    this.#console = console;
    this.#interrupt = interrupt;
    console.onInput(() => this.#receive());
  }

  reset(): void {
    this.#fifoStart = this.#fifoLength = 0;
    this.#ier = this.#fcr = this.#mcr = this.#scr = this.#dlm = 0;
    this.#lcr = 0x03;
    this.#dll = 0x0c;
    this.#msr = MSR_CONNECTED;
    this.#overrun = this.#thriPending = false;
    this.#drive();
  }

  /** Held: what comes from the host waits there. */
  hold(held: boolean): void {
    this.#held = held;
    if (!held) this.#receive();
  }
  save(): SavedUart {
    const fifo = new Uint8Array(this.#fifoLength).map((_, index) => this.#fifo[(this.#fifoStart + index) % FIFO_BYTES]!);
    return {
      fifo, ier: this.#ier, fcr: this.#fcr, lcr: this.#lcr, mcr: this.#mcr, msr: this.#msr, scr: this.#scr,
      dll: this.#dll, dlm: this.#dlm, overrun: this.#overrun, thriPending: this.#thriPending,
    };
  }
  restore(saved: SavedUart): void {
    const fifo = saved.fifo.subarray(0, FIFO_BYTES);
    this.#fifo.set(fifo);
    this.#fifoStart = 0;
    this.#fifoLength = fifo.length;
    this.#ier = saved.ier & IER_MASK;
    this.#fcr = (saved.fcr & FCR_ENABLE) !== 0 ? saved.fcr & 0xc9 : 0;
    this.#lcr = saved.lcr & 0xff;
    this.#mcr = saved.mcr & MCR_MASK;
    this.#msr = saved.msr & 0xff;
    this.#scr = saved.scr & 0xff;
    this.#dll = saved.dll & 0xff;
    this.#dlm = saved.dlm & 0xff;
    this.#overrun = saved.overrun;
    this.#thriPending = saved.thriPending;
    this.#receive();
  }

  /** A wider access reads the byte of its first lane, as on an 8-bit bus. */
  read(offset: number, _bytes: AccessBytes): number {
    const latch = (this.#lcr & LCR_DLAB) !== 0;
    switch (offset) {
      case RBR_THR_DLL:
        return latch ? this.#dll : this.#readReceived();
      case IER_DLM:
        return latch ? this.#dlm : this.#ier;
      case IIR_FCR: {
        const cause = this.#cause();
        if (cause === IIR_THRI) {
          this.#thriPending = false;
          this.#drive();
        }
        return cause | ((this.#fcr & FCR_ENABLE) !== 0 ? IIR_FIFOS : 0);
      }
      case LCR:
        return this.#lcr;
      case MCR:
        return this.#mcr;
      case LSR: {
        const status = LSR_THRE | LSR_TEMT | (this.#fifoLength > 0 ? LSR_DR : 0) | (this.#overrun ? LSR_OE : 0);
        this.#overrun = false;
        this.#drive();
        return status;
      }
      case MSR: {
        const status = this.#msr;
        this.#msr &= 0xf0; // reading clears the delta bits
        this.#drive();
        return status;
      }
      case SCR:
        return this.#scr;
      default:
        return 0;
    }
  }

  write(offset: number, _bytes: AccessBytes, wide: number): boolean {
    const value = wide & 0xff;
    const latch = (this.#lcr & LCR_DLAB) !== 0;
    switch (offset) {
      case RBR_THR_DLL:
        if (latch) this.#dll = value;
        else this.#transmit(value);
        break;
      case IER_DLM:
        if (latch) this.#dlm = value;
        else {
          // Enabling THRI while THR is empty interrupts at once; Linux tests for it (8250_port.c, UART_BUG_THRE).
          if ((value & IER_THRI) !== 0 && (this.#ier & IER_THRI) === 0) this.#thriPending = true;
          this.#ier = value & IER_MASK;
        }
        break;
      case IIR_FCR:
        this.#setFifoControl(value);
        break;
      case LCR:
        this.#lcr = value;
        break;
      case MCR:
        this.#mcr = value & MCR_MASK;
        this.#setModemStatus();
        break;
      case SCR:
        this.#scr = value;
        break;
      default:
        return false; // LSR and MSR are read only
    }
    this.#drive();
    return true;
  }

  #transmit(byte: number): void {
    if ((this.#mcr & MCR_LOOP) !== 0) {
      if (this.#fifoLength >= this.#capacity()) this.#overrun = true;
      else this.#push(byte);
    } else this.#console.writeByte(byte);
    this.#thriPending = true;
  }

  #readReceived(): number {
    let byte = 0;
    if (this.#fifoLength > 0) {
      byte = this.#fifo[this.#fifoStart]!;
      this.#fifoStart = (this.#fifoStart + 1) % FIFO_BYTES;
      this.#fifoLength--;
    }
    this.#receive();
    return byte;
  }

  /** Fills the FIFO from the host's input; the host keeps what does not fit, so nothing overruns. */
  #receive(): void {
    if ((this.#mcr & MCR_LOOP) === 0 && !this.#held) {
      while (this.#fifoLength < this.#capacity() && this.#console.inputLength > 0) this.#push(this.#console.takeInputByte());
    }
    this.#drive();
  }

  #push(byte: number): void {
    this.#fifo[(this.#fifoStart + this.#fifoLength++) % FIFO_BYTES] = byte;
  }

  #capacity(): number {
    return (this.#fcr & FCR_ENABLE) !== 0 ? FIFO_BYTES : 1;
  }

  #setFifoControl(value: number): void {
    // Switching FIFOs on or off clears them, as does the bit for it.
    const switched = ((value ^ this.#fcr) & FCR_ENABLE) !== 0;
    this.#fcr = (value & FCR_ENABLE) !== 0 ? value & 0xc9 : 0;
    if (switched || (value & FCR_CLEAR_RECEIVE) !== 0) {
      this.#fifoLength = 0;
      this.#receive();
    }
  }

  #setModemStatus(): void {
    // In loopback the outputs come back as inputs: RTS→CTS, DTR→DSR, OUT1→RI, OUT2→DCD.
    const mcr = this.#mcr;
    const lines =
      (mcr & MCR_LOOP) === 0
        ? MSR_CONNECTED
        : ((mcr & 0x02) << 3) | ((mcr & 0x01) << 5) | ((mcr & 0x04) << 4) | ((mcr & 0x08) << 4);
    const changed = (lines ^ this.#msr) >> 4;
    // The ring indicator's delta is set on its trailing edge only.
    const deltas = (changed & 0x0b) | ((this.#msr & 0x40) !== 0 && (lines & 0x40) === 0 ? 0x04 : 0);
    this.#msr = lines | (this.#msr & 0x0f) | deltas;
    if ((mcr & MCR_LOOP) === 0) this.#receive();
  }

  /** The highest interrupt that is enabled and pending (data sheet, table IV). */
  #cause(): number {
    if ((this.#ier & IER_RLSI) !== 0 && this.#overrun) return IIR_RLSI;
    if ((this.#ier & IER_RDI) !== 0 && this.#fifoLength > 0) {
      const trigger = (this.#fcr & FCR_ENABLE) !== 0 ? FCR_TRIGGER_LEVELS[(this.#fcr >> 6) & 3]! : 1;
      // Below the trigger the chip waits four character times, which on our line is no time.
      return this.#fifoLength >= trigger ? IIR_RDI : IIR_TIMEOUT;
    }
    if ((this.#ier & IER_THRI) !== 0 && this.#thriPending) return IIR_THRI;
    if ((this.#ier & IER_MSI) !== 0 && (this.#msr & 0x0f) !== 0) return IIR_MSI;
    return IIR_NONE;
  }

  #drive(): void {
    const level = this.#cause() !== IIR_NONE;
    if (level === this.#interruptLevel) return;
    this.#interruptLevel = level;
    this.#interrupt(level);
  }
}
