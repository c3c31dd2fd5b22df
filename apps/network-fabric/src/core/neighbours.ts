import type { Frame } from "@polyvisor/contracts/network";
import type { Clock } from "@polyvisor/service-kit";
import { writeMac, type Ipv4Address, type MacAddress } from "@polyvisor/wire";

/** Stations that one gateway remembers; beyond that the one not heard for longest is forgotten, and asked for when needed. */
export const MAXIMUM_NEIGHBOURS = 512;
/** Addresses being asked for, and frames that wait for each (RFC 1122, 2.3.2.2 asks for at least one). */
const MAXIMUM_UNRESOLVED = 64;
const WAITING_FRAMES = 4;
/** As Linux: three requests, a second apart (RFC 1122, 2.3.2.1: at most one per second). */
const REQUESTS = 3;
const REQUEST_INTERVAL_MS = 1000;

/** Which station has which address (RFC 826), and the frames that wait for the answer. */
export class Neighbours {
  readonly counters = { arp_unresolved: 0 };
  readonly #clock: Clock;
  readonly #ask: (address: Ipv4Address) => void;
  readonly #send: (frame: Frame) => void;
  /** Least recently heard first. */
  readonly #known = new Map<Ipv4Address, MacAddress>();
  readonly #unresolved = new Map<Ipv4Address, { frames: Frame[]; cancel: () => void }>();

  constructor(clock: Clock, ask: (address: Ipv4Address) => void, send: (frame: Frame) => void) {
    this.#clock = clock;
    this.#ask = ask;
    this.#send = send;
  }

  get(address: Ipv4Address): MacAddress | undefined {
    return this.#known.get(address);
  }
  /** The address that a station was heard with last. */
  addressOf(mac: MacAddress): Ipv4Address | undefined {
    let found: Ipv4Address | undefined;
    for (const [address, owner] of this.#known) if (owner === mac) found = address;
    return found;
  }
  learn(address: Ipv4Address, mac: MacAddress): void {
    if (this.#known.get(address) !== mac) {
      this.#known.delete(address);
      if (this.#known.size >= MAXIMUM_NEIGHBOURS) this.#known.delete(this.#known.keys().next().value!);
      this.#known.set(address, mac);
    }
    const waiting = this.#unresolved.get(address);
    if (!waiting) return;
    this.#unresolved.delete(address);
    waiting.cancel();
    for (const frame of waiting.frames) this.#sendTo(mac, frame);
  }
  /** Sends a frame of our own making, whose destination is left open, to whoever has the address. */
  send(address: Ipv4Address, frame: Frame): void {
    const mac = this.#known.get(address);
    if (mac !== undefined) return this.#sendTo(mac, frame);
    const waiting = this.#unresolved.get(address);
    if (waiting) {
      if (waiting.frames.length < WAITING_FRAMES) waiting.frames.push(frame);
      else this.counters.arp_unresolved++;
    } else if (this.#unresolved.size >= MAXIMUM_UNRESOLVED) this.counters.arp_unresolved++;
    else this.#request(address, [frame], REQUESTS);
  }
  #request(address: Ipv4Address, frames: Frame[], tries: number): void {
    const again = () => {
      this.#unresolved.delete(address);
      if (tries > 1) this.#request(address, frames, tries - 1);
      else this.counters.arp_unresolved += frames.length;
    };
    this.#unresolved.set(address, { frames, cancel: this.#clock.after(REQUEST_INTERVAL_MS, again) });
    this.#ask(address);
  }
  #sendTo(mac: MacAddress, frame: Frame): void {
    writeMac(frame.data, 0, mac);
    this.#send(frame);
  }
  close(): void {
    for (const { cancel } of this.#unresolved.values()) cancel();
    this.#unresolved.clear();
    this.#known.clear();
  }
}
