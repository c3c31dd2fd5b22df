import type { Clock } from "@polyvisor/service-kit";
import { parseTcp, TCP_FLAG, type Ipv4Packet, type TcpSegment } from "@polyvisor/wire";
import type { GuestSide } from "./guest-path.ts";
import type { HostAddress, HostNetwork, HostStream } from "./host-network.ts";
import { TcpFlow, type TcpFlowOwner } from "./tcp-flow.ts";

/** Connections that one guest may have at a time; more of its SYNs are dropped, and its neighbours' are not. */
export const MAXIMUM_FLOWS_PER_GUEST = 2048;
/** Of those, the ones that the host has not connected yet: a flood of SYNs gets no further. */
export const MAXIMUM_CONNECTING = 512;
/** Ports of the gateway that connections to a guest come from. */
const FIRST_EPHEMERAL = 49_152; // RFC 6335, 6

/** The rest of the byte is ECN, which each of the two connections has for itself (RFC 3168, 5). */
const DSCP_MASK = 0xfc;

/** The flows of one guest. */
interface GuestFlows {
  /** By the guest's port, then by remote address and port. */
  readonly byPort: Map<number, Map<number, TcpFlow>>;
  count: number;
  connecting: number;
}

/** The table of TCP connections of one gateway. */
export class TcpNat implements TcpFlowOwner {
  readonly clock: Clock;
  readonly counters = { nat_tcp_opened: 0, nat_tcp_refused: 0, nat_tcp_dropped: 0 };
  readonly #guest: GuestSide;
  readonly #host: HostNetwork;
  readonly #guests = new Map<number, GuestFlows>();
  readonly #keys = new Map<TcpFlow, { guest: number; remote: number }>();
  readonly #connecting = new Set<TcpFlow>();
  #dirty = new Set<TcpFlow>();
  #nextEphemeral = FIRST_EPHEMERAL;

  constructor(guest: GuestSide, host: HostNetwork, clock: Clock) {
    this.#guest = guest;
    this.#host = host;
    this.clock = clock;
  }

  get flows(): Iterable<TcpFlow> {
    return this.#keys.keys();
  }

  /** A datagram from a guest; `to` is where its destination is on the host's side. `connect` replaces the host's (DNS over TCP). */
  outbound(packet: Ipv4Packet, to: string, verified: boolean, connect: HostNetwork["connect"] = (target, events) => this.#host.connect(target, events)): void {
    const segment = parseTcp(packet.payload, packet, verified);
    if (!segment) return;
    const { source, destination } = packet;
    const flow = this.#guests.get(source)?.byPort.get(segment.sourcePort)?.get(remoteKey(destination, segment.destinationPort));
    if (flow && !flow.replaceableBy(segment)) return flow.segment(segment, packet.trafficClass & DSCP_MASK);
    if ((segment.flags & (TCP_FLAG.SYN | TCP_FLAG.ACK | TCP_FLAG.RST)) !== TCP_FLAG.SYN) return this.#guest.reset(packet);
    flow?.drop(); // TIME-WAIT, and the guest uses its port again (RFC 9293, 3.10.7.4)
    this.#open(packet, segment, { address: to, port: segment.destinationPort }, connect);
  }
  #open(packet: Ipv4Packet, syn: TcpSegment, to: HostAddress, connect: HostNetwork["connect"]): void {
    const { source, destination } = packet;
    const entry = this.#guestFlows(source);
    if ((entry.count >= MAXIMUM_FLOWS_PER_GUEST && !this.#dropWaiting(entry)) || entry.connecting >= MAXIMUM_CONNECTING) {
      this.counters.nat_tcp_dropped++;
      return;
    }
    const path = this.#guest.path(source, destination);
    const initialSequence = this.#initialSequence(`${path.guest}:${syn.sourcePort}-${path.remote}:${syn.destinationPort}`);
    const flow = new TcpFlow(this, { path, guestPort: syn.sourcePort, remotePort: syn.destinationPort, initialSequence });
    this.#insert(flow, source, destination);
    this.#connecting.add(flow);
    entry.connecting++;
    this.counters.nat_tcp_opened++;
    // The SYN lives longer than its frame: the connect may take minutes.
    const opening = { packet: { ...packet, payload: packet.payload.slice() }, syn: { ...syn, options: syn.options.slice(), payload: new Uint8Array(0) } };
    flow.connect({ ...opening, refuse: (refused, how) => this.#refuse(refused, how) }, (events) => connect(to, events), packet.trafficClass & DSCP_MASK);
  }
  connected(flow: TcpFlow): void {
    if (this.#connecting.delete(flow)) this.#guests.get(this.#keys.get(flow)!.guest)!.connecting--;
  }
  #refuse(packet: Ipv4Packet, how: number | "reset"): void {
    this.counters.nat_tcp_refused++;
    if (how === "reset") this.#guest.reset(packet);
    else this.#guest.unreachable(packet, how);
  }

  /** A connection that came to a forwarded port: goes to a guest, from the gateway's address `local`. Undefined: no room. */
  inbound(guest: number, guestPort: number, local: number, stream: HostStream, forward: string): TcpFlow | undefined {
    const entry = this.#guestFlows(guest);
    const ports = entry.byPort.get(guestPort);
    for (let tries = 0; tries < 0x1_0000 - FIRST_EPHEMERAL && entry.count < MAXIMUM_FLOWS_PER_GUEST; tries++) {
      const remotePort = this.#nextEphemeral;
      this.#nextEphemeral = remotePort === 0xffff ? FIRST_EPHEMERAL : remotePort + 1;
      if (ports?.has(remoteKey(local, remotePort))) continue;
      const path = this.#guest.path(guest, local);
      const initialSequence = this.#initialSequence(`${path.guest}:${guestPort}-${path.remote}:${remotePort}`);
      const flow = new TcpFlow(this, { path, guestPort, remotePort, initialSequence }, forward);
      this.#insert(flow, guest, local);
      this.counters.nat_tcp_opened++;
      this.turn(() => flow.offer(stream));
      return flow;
    }
    this.counters.nat_tcp_dropped++;
    return undefined;
  }

  dirty(flow: TcpFlow): void {
    if (this.#dirty.size === 0) this.#guest.afterTurn(() => this.#settle());
    this.#dirty.add(flow);
  }
  turn(run: () => void): void {
    this.#guest.turn(run);
  }
  forget(flow: TcpFlow): void {
    const key = this.#keys.get(flow);
    if (!key) return;
    this.connected(flow);
    this.#keys.delete(flow);
    const entry = this.#guests.get(key.guest)!;
    const ports = entry.byPort.get(flow.addresses.guestPort)!;
    ports.delete(key.remote);
    if (ports.size === 0) entry.byPort.delete(flow.addresses.guestPort);
    if (--entry.count === 0) this.#guests.delete(key.guest);
  }
  close(): void {
    for (const flow of this.#keys.keys()) flow.drop();
    this.#dirty.clear();
  }

  #settle(): void {
    const flows = this.#dirty;
    this.#dirty = new Set();
    for (const flow of flows) flow.settle();
  }
  #guestFlows(guest: number): GuestFlows {
    let entry = this.#guests.get(guest);
    if (!entry) {
      entry = { byPort: new Map(), count: 0, connecting: 0 };
      this.#guests.set(guest, entry);
    }
    return entry;
  }
  #insert(flow: TcpFlow, guest: number, remote: number): void {
    const entry = this.#guestFlows(guest);
    const { guestPort, remotePort } = flow.addresses;
    let ports = entry.byPort.get(guestPort);
    if (!ports) entry.byPort.set(guestPort, (ports = new Map()));
    const key = remoteKey(remote, remotePort);
    ports.set(key, flow);
    entry.count++;
    this.#keys.set(flow, { guest, remote: key });
  }
  /** Makes room by forgetting the oldest connection in TIME-WAIT. */
  #dropWaiting(entry: GuestFlows): boolean {
    for (const ports of entry.byPort.values()) {
      for (const flow of ports.values()) {
        if (flow.state !== "TIME-WAIT") continue;
        flow.drop();
        return true;
      }
    }
    return false;
  }
  /** RFC 6528, 3: a clock of 4 microseconds and a secret function of the connection. */
  #initialSequence(connection: string): number {
    return (Math.floor(this.clock.monotonic() * 250) + this.#host.initialSequence(connection)) >>> 0;
  }
}

/** A Map key: 32 bits of address and 16 of port fit a double exactly. */
function remoteKey(address: number, port: number): number {
  return address * 0x1_0000 + port;
}
