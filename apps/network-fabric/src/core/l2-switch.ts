import type { Frame } from "@polyvisor/contracts/network";
import { isGroupMac, readMac, type MacAddress } from "@polyvisor/wire";

/** Addresses not heard of for so long are forgotten (IEEE 802.1Q, 8.8.3: default ageing time 300 s). */
export const MAC_AGE_MS = 300_000;
/** Addresses that one switch remembers; a guest that invents more only makes its own frames flood. */
export const MAX_ADDRESSES = 4096;

/**
 * Something a frame can be handed to. A frame may come with offload left to do (NET-6): whoever needs whole frames calls
 * `completeFrame`. Its bytes belong to everybody who gets it: nobody writes into them.
 */
export interface SwitchPort {
  deliver(frame: Frame): void;
}

/** A learning bridge (IEEE 802.1Q, 8): unicast to where the address was last heard, everything else to all. */
export class L2Switch {
  readonly #ports = new Set<SwitchPort>();
  readonly #addresses = new Map<MacAddress, { port: SwitchPort; heardAt: number }>();
  readonly #now: () => number;

  /** `now` in milliseconds, monotonic. */
  constructor(now: () => number) {
    this.#now = now;
  }
  attach(port: SwitchPort): void {
    this.#ports.add(port);
  }
  detach(port: SwitchPort): void {
    this.#ports.delete(port);
    for (const [mac, entry] of this.#addresses) if (entry.port === port) this.#addresses.delete(mac);
  }
  /** A whole frame from a port. */
  forward(from: SwitchPort, frame: Frame): void {
    const now = this.#now();
    const destination = readMac(frame.data, 0);
    const source = readMac(frame.data, 6);
    if (isGroupMac(source)) return; // no station has such an address
    this.#learn(source, from, now);
    if (isReserved(destination)) return;
    const known = isGroupMac(destination) ? undefined : this.#addresses.get(destination);
    if (known && now - known.heardAt < MAC_AGE_MS) {
      if (known.port !== from) known.port.deliver(frame);
      return;
    }
    for (const port of this.#ports) if (port !== from) port.deliver(frame);
  }
  get addresses(): number {
    return this.#addresses.size;
  }

  #learn(mac: MacAddress, port: SwitchPort, now: number): void {
    const entry = this.#addresses.get(mac);
    if (entry) {
      entry.port = port;
      entry.heardAt = now;
      return;
    }
    if (this.#addresses.size >= MAX_ADDRESSES) {
      for (const [old, { heardAt }] of this.#addresses) if (now - heardAt >= MAC_AGE_MS) this.#addresses.delete(old);
      if (this.#addresses.size >= MAX_ADDRESSES) return;
    }
    this.#addresses.set(mac, { port, heardAt: now });
  }
}

/** 01-80-C2-00-00-00 to 0F: never forwarded by a bridge (IEEE 802.1Q, table 8-1). */
function isReserved(mac: MacAddress): boolean {
  return Math.floor(mac / 16) === 0x0180_c200_000;
}
