/**
 * The frame of GDB's remote protocol on a byte stream (GDB manual, appendix E.1 "Overview"): `$data#cc`, acknowledged by `+`
 * or asked for again by `-` until QStartNoAckMode; `}` escapes; a lone 0x03 interrupts.
 */
const START = 0x24; // $
const END = 0x23; // #
const ESCAPE = 0x7d; // }
const REPEAT = 0x2a; // * (run-length encoding; we escape it and never send it)
const ACK = 0x2b;
const NACK = 0x2d;
export const INTERRUPT = 0x03;
/** More than any packet that a debugger sends when told our packet size. */
const MOST_BYTES = 0x1_0000;

export interface FramingEvents {
  packet(data: Uint8Array): void;
  /** Bytes for the debugger. */
  write(bytes: Uint8Array): void;
  /** What arrives is not this protocol. */
  broken(why: string): void;
}

export class PacketFraming {
  readonly #events: FramingEvents;
  #data: number[] = [];
  #state: "idle" | "data" | "escaped" | "checksum" = "idle";
  #sum = 0;
  #checksum = "";
  #acknowledges = true;
  #last: Uint8Array | undefined;

  constructor(events: FramingEvents) {
    this.#events = events;
  }

  /** No acknowledgements from now on: QStartNoAckMode was answered with OK. */
  stopAcknowledging(): void {
    this.#acknowledges = false;
  }

  send(data: Uint8Array): void {
    const bytes: number[] = [START];
    let sum = 0;
    const put = (byte: number): void => {
      bytes.push(byte);
      sum = (sum + byte) & 255;
    };
    for (const byte of data) {
      if (byte === START || byte === END || byte === ESCAPE || byte === REPEAT) {
        put(ESCAPE);
        put(byte ^ 0x20);
      } else put(byte);
    }
    this.#last = Uint8Array.from([...bytes, END, ...Buffer.from(sum.toString(16).padStart(2, "0"))]);
    this.#events.write(this.#last);
  }

  receive(bytes: Uint8Array): void {
    for (const byte of bytes) this.#byte(byte);
  }

  #byte(byte: number): void {
    switch (this.#state) {
      case "idle":
        if (byte === START) {
          this.#state = "data";
          this.#data = [];
          this.#sum = 0;
        } else if (byte === INTERRUPT) this.#events.packet(Uint8Array.of(INTERRUPT));
        else if (byte === NACK && this.#last && this.#acknowledges) this.#events.write(this.#last);
        return; // `+`, and noise between packets
      case "data":
      case "escaped":
        if (this.#state === "data" && byte === END) {
          this.#state = "checksum";
          this.#checksum = "";
          return;
        }
        this.#sum = (this.#sum + byte) & 255;
        if (this.#state === "data" && byte === ESCAPE) this.#state = "escaped";
        else {
          this.#data.push(this.#state === "escaped" ? byte ^ 0x20 : byte);
          this.#state = "data";
          if (this.#data.length > MOST_BYTES) {
            this.#state = "idle";
            this.#events.broken(`a packet of more than ${MOST_BYTES} bytes`);
          }
        }
        return;
      case "checksum":
        this.#checksum += String.fromCharCode(byte);
        if (this.#checksum.length < 2) return;
        this.#state = "idle";
        if (Number.parseInt(this.#checksum, 16) !== this.#sum && this.#acknowledges) return this.#events.write(Uint8Array.of(NACK));
        if (this.#acknowledges) this.#events.write(Uint8Array.of(ACK));
        this.#events.packet(Uint8Array.from(this.#data));
    }
  }
}
