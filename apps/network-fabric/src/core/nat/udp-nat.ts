import type { Clock } from "@polyvisor/service-kit";
import { formatIpv4, IP_PROTOCOL, parseIpv4, parseUdp, UNREACHABLE_CODE, emitUdp, type Ipv4Address, type Ipv4Packet } from "@polyvisor/wire";
import type { GuestSide } from "./guest-path.ts";
import type { HostAddress, HostDatagrams, HostError, HostNetwork } from "./host-network.ts";

/** RFC 4787, REQ-5: a mapping lives for two minutes at least. */
export const UDP_IDLE_MS = 125_000;
const SWEEP_MS = 10_000;
/** Mappings of one guest; a guest that needs more loses its own oldest. */
export const MAXIMUM_MAPPINGS_PER_GUEST = 512;
/** Bytes of one mapping that may wait for the host's socket. */
const PENDING_BYTES = 1024 * 1024;
/** Destinations whose last packet is remembered, to be quoted in an ICMP error. */
const REMEMBERED = 16;
/** What an error quotes (RFC 1812, 4.3.2.3). */
const QUOTED_BYTES = 548;

/** Peers of forwarded ports at a time, and the gateway's ports that stand for them. */
const MAXIMUM_PEERS = 1024;
const FIRST_PEER_PORT = 61_000;
const LAST_PEER_PORT = 65_535;

/** Somebody on the host's side who sent to a forwarded port. */
export interface UdpPeer {
  readonly key: string;
  readonly gatewayPort: number;
  readonly reply: (answer: Uint8Array) => void;
  readonly from: HostAddress;
  readonly forward: string;
  readonly guest: Ipv4Address;
  readonly guestPort: number;
  readonly openedAt: number;
  lastAt: number;
  bytesFromGuest: number;
  bytesToGuest: number;
}
export interface UdpMapping {
  readonly guest: Ipv4Address;
  readonly guestPort: number;
  readonly socket: HostDatagrams;
  readonly openedAt: number;
  lastAt: number;
  bytesFromGuest: number;
  bytesToGuest: number;
  /** The last packet to each destination, newest last. */
  readonly sent: Map<string, Ipv4Packet>;
}

/** UDP of the guests of one gateway: one socket of the host per guest address and port (RFC 4787, REQ-1). */
export class UdpNat {
  readonly counters = { nat_udp_opened: 0, nat_udp_dropped: 0, nat_udp_expired: 0 };
  readonly #guest: GuestSide;
  readonly #host: HostNetwork;
  readonly #clock: Clock;
  /** The address by which a guest reaches the host itself. */
  readonly #gateway: Ipv4Address;
  /** By guest address, then port; oldest first. */
  readonly #mappings = new Map<Ipv4Address, Map<number, UdpMapping>>();
  /** Peers of forwarded ports, by the gateway's port that stands for each; oldest first. */
  readonly #peers = new Map<number, UdpPeer>();
  readonly #peersByKey = new Map<string, UdpPeer>();
  #nextPeerPort = FIRST_PEER_PORT;
  #cancelSweep: (() => void) | undefined;

  constructor(guest: GuestSide, host: HostNetwork, clock: Clock, gateway: Ipv4Address) {
    this.#guest = guest;
    this.#host = host;
    this.#clock = clock;
    this.#gateway = gateway;
  }

  *mappings(): Iterable<UdpMapping> {
    for (const ports of this.#mappings.values()) yield* ports.values();
  }

  /**
   * A datagram that came to a forwarded port: the guest sees each peer as a port of the gateway, and what it sends there goes
   * back by `reply`. True: the peer is new.
   */
  inbound(guest: Ipv4Address, guestPort: number, data: Uint8Array, { from, reply, forward }: { from: HostAddress; reply: (answer: Uint8Array) => void; forward: string }): boolean {
    const key = `${forward} ${from.address}:${from.port}`;
    const now = this.#clock.monotonic();
    let peer = this.#peersByKey.get(key);
    const fresh = peer === undefined;
    if (!peer) {
      if (this.#peers.size >= MAXIMUM_PEERS) this.#removePeer(this.#peers.values().next().value!);
      while (this.#peers.has(this.#nextPeerPort)) this.#nextPeerPort = this.#nextPeerPort === LAST_PEER_PORT ? FIRST_PEER_PORT : this.#nextPeerPort + 1;
      peer = { key, gatewayPort: this.#nextPeerPort, reply, from, forward, guest, guestPort, openedAt: now, lastAt: now, bytesFromGuest: 0, bytesToGuest: 0 };
      this.#peers.set(peer.gatewayPort, peer);
      this.#peersByKey.set(key, peer);
      this.#cancelSweep ??= this.#clock.after(SWEEP_MS, () => this.#sweep());
    }
    peer.lastAt = now;
    peer.bytesToGuest += data.length;
    this.deliver(guest, guestPort, this.#gateway, peer.gatewayPort, data);
    return fresh;
  }
  get peers(): Iterable<UdpPeer> {
    return this.#peers.values();
  }
  #removePeer(peer: UdpPeer): void {
    this.#peers.delete(peer.gatewayPort);
    this.#peersByKey.delete(peer.key);
  }

  /** A datagram from a guest; `to` is where its destination is on the host's side. */
  outbound(packet: Ipv4Packet, to: string, verified: boolean): void {
    const datagram = parseUdp(packet.payload, packet, verified);
    if (!datagram || datagram.destinationPort === 0) return;
    const peer = packet.destination === this.#gateway ? this.#peers.get(datagram.destinationPort) : undefined;
    if (peer && peer.guest === packet.source) {
      peer.lastAt = this.#clock.monotonic();
      peer.bytesFromGuest += datagram.payload.length;
      return peer.reply(datagram.payload);
    }
    const mapping = this.#mappingOf(packet.source, datagram.sourcePort);
    if (mapping.socket.pending > PENDING_BYTES) {
      this.counters.nat_udp_dropped++;
      return;
    }
    mapping.lastAt = this.#clock.monotonic();
    mapping.bytesFromGuest += datagram.payload.length;
    const key = `${to}:${datagram.destinationPort}`;
    mapping.sent.delete(key);
    mapping.sent.set(key, { ...packet, payload: packet.payload.slice(0, QUOTED_BYTES) });
    if (mapping.sent.size > REMEMBERED) mapping.sent.delete(mapping.sent.keys().next().value!);
    mapping.socket.send(datagram.payload, { address: to, port: datagram.destinationPort });
  }

  #mappingOf(guest: Ipv4Address, guestPort: number): UdpMapping {
    let ports = this.#mappings.get(guest);
    if (!ports) this.#mappings.set(guest, (ports = new Map()));
    const known = ports.get(guestPort);
    if (known) return known;
    if (ports.size >= MAXIMUM_MAPPINGS_PER_GUEST) {
      let oldest: UdpMapping | undefined;
      for (const each of ports.values()) if (!oldest || each.lastAt < oldest.lastAt) oldest = each;
      this.#remove(oldest!);
      this.counters.nat_udp_dropped++;
    }
    const now = this.#clock.monotonic();
    const mapping: UdpMapping = {
      ...{ guest, guestPort, openedAt: now, lastAt: now, bytesFromGuest: 0, bytesToGuest: 0, sent: new Map() },
      socket: this.#host.datagrams(
        { received: (data, from) => this.#inbound(mapping, data, from), failed: (to, error) => this.#failed(mapping, to, error) },
        4,
      ),
    };
    ports.set(guestPort, mapping);
    this.counters.nat_udp_opened++;
    this.#cancelSweep ??= this.#clock.after(SWEEP_MS, () => this.#sweep());
    return mapping;
  }
  #inbound(mapping: UdpMapping, data: Uint8Array, from: HostAddress): void {
    const source = parseIpv4(from.address);
    if (source === undefined) return;
    mapping.lastAt = this.#clock.monotonic();
    mapping.bytesToGuest += data.length;
    this.deliver(mapping.guest, mapping.guestPort, source >>> 24 === 127 ? this.#gateway : source, from.port, data);
  }
  /** A datagram to a guest, from an address as the guest sees it. */
  deliver(guest: Ipv4Address, guestPort: number, source: Ipv4Address, sourcePort: number, payload: Uint8Array): void {
    const datagram = emitUdp({ sourcePort, destinationPort: guestPort, payload }, { source, destination: guest });
    this.#guest.turn(() => this.#guest.path(guest, source).sendDatagram(IP_PROTOCOL.UDP, datagram));
  }
  /** What the host was told about a destination, the guest is told (RFC 4787, REQ-14 lets errors through). */
  #failed(mapping: UdpMapping, to: HostAddress, error: HostError): void {
    const packet = mapping.sent.get(`${to.address}:${to.port}`);
    if (!packet) return;
    const code = {
      ...{ refused: UNREACHABLE_CODE.PORT, "host-unreachable": UNREACHABLE_CODE.HOST, "network-unreachable": UNREACHABLE_CODE.NET },
      ...{ denied: UNREACHABLE_CODE.ADMINISTRATIVELY, timeout: UNREACHABLE_CODE.HOST, "too-large": UNREACHABLE_CODE.FRAGMENTATION_NEEDED },
    }[error.failure as string];
    if (code === undefined) this.counters.nat_udp_dropped++;
    else this.#guest.turn(() => this.#guest.unreachable(packet, code));
  }
  #sweep(): void {
    const now = this.#clock.monotonic();
    for (const mapping of [...this.mappings()]) {
      if (now - mapping.lastAt < UDP_IDLE_MS) continue;
      this.#remove(mapping);
      this.counters.nat_udp_expired++;
    }
    for (const peer of [...this.#peers.values()]) if (now - peer.lastAt >= UDP_IDLE_MS) this.#removePeer(peer);
    this.#cancelSweep = this.#mappings.size > 0 || this.#peers.size > 0 ? this.#clock.after(SWEEP_MS, () => this.#sweep()) : undefined;
  }
  #remove(mapping: UdpMapping): void {
    mapping.socket.close();
    const ports = this.#mappings.get(mapping.guest)!;
    ports.delete(mapping.guestPort);
    if (ports.size === 0) this.#mappings.delete(mapping.guest);
  }
  close(): void {
    this.#cancelSweep?.();
    for (const mapping of [...this.mappings()]) this.#remove(mapping);
  }
}

/** Where on the host an address of the guest's world is. Undefined: nowhere a guest may go. */
export function hostSide(destination: Ipv4Address, gateway: Ipv4Address): string | undefined {
  if (destination === gateway) return "127.0.0.1";
  const network = destination >>> 24;
  // "This network", loopback, reserved (RFC 6890): no router passes them on.
  return network === 0 || network === 127 || network >= 240 ? undefined : formatIpv4(destination);
}
