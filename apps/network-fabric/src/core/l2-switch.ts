import type { Frame } from "@polyvisor/contracts/network";
import { isGroupMac, readMac, type MacAddress } from "@polyvisor/wire";
import { TokenBucket } from "./token-bucket.ts";
import { admits, classify, onLeaving, TRANSPARENT, type VlanRule } from "./vlan.ts";

/** Addresses not heard of for so long are forgotten (IEEE 802.1Q, 8.8.3: default ageing time 300 s). */
export const MAC_AGE_MS = 300_000;
/** Addresses that one switch remembers, and of them that one port may have: a guest that invents more harms itself alone. */
export const MAX_ADDRESSES = 4096;
export const MAX_ADDRESSES_PER_PORT = 1024;
/** Frames for everybody that one port may send in a second; an ARP storm of one guest must not fill the others' queues. */
export const DEFAULT_STORM_LIMIT = 1000;

/** Something a frame can be handed to. */
export interface SwitchPort {
  deliver(frame: Frame): void;
  /** Absent: everything passes as it is. */
  readonly vlan?: VlanRule;
}

interface Attachment {
  readonly vlan: VlanRule;
  readonly storm: TokenBucket;
  addresses: number;
}
interface Entry {
  port: SwitchPort;
  heardAt: number;
}

/**
 * A learning bridge (IEEE 802.1Q, 8): unicast to where the address was last heard, everything else to all ports of the
 * frame's VLAN.
 */
export class L2Switch {
  readonly counters = { forwarded: 0, flooded: 0, dropped_storm: 0, dropped_vlan: 0, dropped_reserved: 0 };
  readonly #ports = new Map<SwitchPort, Attachment>();
  /** Each VLAN learns apart (IEEE 802.1Q, 8.8.9: independent VLAN learning); 0 is untagged. */
  readonly #addresses = new Map<number, Map<MacAddress, Entry>>();
  readonly #now: () => number;
  readonly #stormLimit: number;
  #count = 0;

  /** `now` in milliseconds, monotonic. */
  constructor(now: () => number, stormLimit = DEFAULT_STORM_LIMIT) {
    this.#now = now;
    this.#stormLimit = stormLimit;
  }
  attach(port: SwitchPort): void {
    const storm = new TokenBucket(this.#stormLimit, this.#stormLimit, this.#now());
    this.#ports.set(port, { vlan: port.vlan ?? TRANSPARENT, storm, addresses: 0 });
  }
  detach(port: SwitchPort): void {
    this.forget(port);
    this.#ports.delete(port);
  }
  /** What was learned from a port whose cable was pulled. */
  forget(port: SwitchPort): void {
    for (const table of this.#addresses.values()) for (const [mac, entry] of table) if (entry.port === port) this.#remove(table, mac, entry);
  }
  /** A whole frame from a port. */
  forward(from: SwitchPort, frame: Frame): void {
    const ingress = this.#ports.get(from);
    if (!ingress) return;
    const vid = classify(ingress.vlan, frame.data);
    if (vid === undefined) return void this.counters.dropped_vlan++;
    const now = this.#now();
    const destination = readMac(frame.data, 0);
    const source = readMac(frame.data, 6);
    if (isGroupMac(source) || isReserved(destination)) return void this.counters.dropped_reserved++; // no station has a group address
    const table = this.#table(vid);
    this.#learn(table, source, from, ingress, now);
    const known = isGroupMac(destination) ? undefined : table.get(destination);
    if (known && now - known.heardAt < MAC_AGE_MS) {
      if (known.port === from) return;
      this.counters.forwarded++;
      return this.#leave(known.port, vid, frame);
    }
    if (!ingress.storm.take(1, now)) return void this.counters.dropped_storm++;
    this.counters.flooded++;
    for (const port of this.#ports.keys()) if (port !== from) this.#leave(port, vid, frame);
  }
  get addresses(): number {
    return this.#count;
  }
  /** What is known now. */
  stations(): { mac: MacAddress; port: SwitchPort; vlan: number; ageMs: number }[] {
    const now = this.#now();
    return [...this.#addresses].flatMap(([vlan, table]) =>
      [...table].map(([mac, { port, heardAt }]) => ({ mac, port, vlan, ageMs: now - heardAt })).filter(({ ageMs }) => ageMs < MAC_AGE_MS),
    );
  }

  #leave(port: SwitchPort, vid: number, frame: Frame): void {
    const vlan = this.#ports.get(port)?.vlan;
    if (!vlan || !admits(vlan, vid)) return;
    port.deliver(vlan === TRANSPARENT && vid === 0 ? frame : onLeaving(vlan, vid, frame));
  }
  #table(vid: number): Map<MacAddress, Entry> {
    let table = this.#addresses.get(vid);
    if (!table) this.#addresses.set(vid, (table = new Map()));
    return table;
  }
  #learn(table: Map<MacAddress, Entry>, mac: MacAddress, port: SwitchPort, attachment: Attachment, now: number): void {
    const entry = table.get(mac);
    if (entry) {
      entry.heardAt = now;
      if (entry.port === port) return;
      this.#remove(table, mac, entry); // it moved
    } else if (this.#count >= MAX_ADDRESSES || attachment.addresses >= MAX_ADDRESSES_PER_PORT) this.#age(now);
    if (this.#count >= MAX_ADDRESSES || attachment.addresses >= MAX_ADDRESSES_PER_PORT) return;
    table.set(mac, { port, heardAt: now });
    attachment.addresses++;
    this.#count++;
  }
  /** At most once a second: a guest that fills the table must not make every frame a walk over it. */
  #agedAt = -Infinity;
  #age(now: number): void {
    if (now - this.#agedAt < 1000) return;
    this.#agedAt = now;
    for (const table of this.#addresses.values()) {
      for (const [mac, entry] of table) if (now - entry.heardAt >= MAC_AGE_MS) this.#remove(table, mac, entry);
    }
  }
  #remove(table: Map<MacAddress, Entry>, mac: MacAddress, entry: Entry): void {
    table.delete(mac);
    this.#count--;
    this.#ports.get(entry.port)!.addresses--;
  }
}

/** 01-80-C2-00-00-00 to 0F: never forwarded by a bridge (IEEE 802.1Q, table 8-1). */
function isReserved(mac: MacAddress): boolean {
  return Math.floor(mac / 16) === 0x0180_c200_000;
}
