import type { Clock } from "@polyvisor/service-kit";
import type { Flow } from "@polyvisor/contracts/network";
import { emitIcmp, formatIpv4, ICMP_TYPE, IP_PROTOCOL, parseIcmp, parseIpv4, UNREACHABLE_CODE, type Ipv4Address, type Ipv4Packet } from "@polyvisor/wire";
import type { GuestSide } from "./guest-path.ts";
import { HostError, type HostNetwork } from "./host-network.ts";
import { TcpNat } from "./tcp-nat.ts";
import { hostSide, UdpNat } from "./udp-nat.ts";

/** Echo requests on their way; more are dropped. */
const MAXIMUM_ECHOES = 64;

/** Everything that leaves one gateway for the host's sockets, and comes back. */
export class Nat {
  readonly tcp: TcpNat;
  readonly udp: UdpNat;
  readonly #guest: GuestSide;
  readonly #host: HostNetwork;
  readonly #clock: Clock;
  readonly #gateway: Ipv4Address;
  #echoes = 0;
  readonly #counters = { nat_echo: 0, nat_echo_dropped: 0 };

  constructor(guest: GuestSide, host: HostNetwork, clock: Clock, gateway: Ipv4Address) {
    this.#guest = guest;
    this.#host = host;
    this.#clock = clock;
    this.#gateway = gateway;
    this.tcp = new TcpNat(guest, host, clock);
    this.udp = new UdpNat(guest, host, clock, gateway);
  }
  get counters(): Record<string, number> {
    return { ...this.tcp.counters, ...this.udp.counters, ...this.#counters };
  }

  /** A whole datagram from a guest. `verified`: its transport checksum need not be looked at. */
  outbound(packet: Ipv4Packet, verified: boolean): void {
    const to = hostSide(packet.destination, this.#gateway);
    if (to === undefined) this.#guest.unreachable(packet, UNREACHABLE_CODE.NET);
    else if (packet.protocol === IP_PROTOCOL.TCP) this.tcp.outbound(packet, to, verified);
    else if (packet.protocol === IP_PROTOCOL.UDP) this.udp.outbound(packet, to, verified);
    else if (packet.protocol === IP_PROTOCOL.ICMP) this.#icmp(packet, to);
    else this.#guest.unreachable(packet, UNREACHABLE_CODE.PROTOCOL);
  }
  /** An echo request goes on where the host may send one; elsewhere the guest is told that it is not allowed (code 13). */
  #icmp(packet: Ipv4Packet, to: string): void {
    const request = parseIcmp(packet.payload);
    if (request?.type !== ICMP_TYPE.ECHO_REQUEST) return;
    const { echo } = this.#host;
    if (!echo) return this.#guest.unreachable(packet, UNREACHABLE_CODE.ADMINISTRATIVELY);
    if (this.#echoes >= MAXIMUM_ECHOES) return void this.#counters.nat_echo_dropped++;
    this.#echoes++;
    this.#counters.nat_echo++;
    const kept = { ...packet, payload: packet.payload.slice() };
    const { rest } = request;
    echo.echo(to, request.payload.slice(), packet.timeToLive - 1).then(
      (outcome) => {
        this.#echoes--;
        if (!outcome) return;
        this.#guest.turn(() => {
          if ("data" in outcome) {
            const payload = emitIcmp({ type: ICMP_TYPE.ECHO_REPLY, code: 0, rest, payload: outcome.data });
            this.#guest.path(kept.source, kept.destination).sendDatagram(IP_PROTOCOL.ICMP, payload);
          } else this.#guest.icmpError(kept, { ...outcome, from: parseIpv4(outcome.from) ?? this.#gateway });
        });
      },
      (error: unknown) => {
        this.#echoes--;
        const denied = error instanceof HostError && error.failure === "denied";
        this.#guest.turn(() => this.#guest.unreachable(kept, denied ? UNREACHABLE_CODE.ADMINISTRATIVELY : UNREACHABLE_CODE.HOST));
      },
    );
  }

  /** The mappings, from both sides. `port`: of the fabric, by the guest's address. */
  flows(port: (guest: string) => string): Flow[] {
    const now = this.#clock.monotonic();
    const times = ({ openedAt, lastAt }: { openedAt: number; lastAt: number }) => ({ ageMs: ms(now - openedAt), idleMs: ms(now - lastAt) });
    const out: Flow[] = [];
    for (const flow of this.tcp.flows) {
      const { path, guestPort, remotePort } = flow.addresses;
      out.push({
        ...{ port: port(path.guest), protocol: "tcp", guestLocal: `${path.guest}:${guestPort}`, guestRemote: `${path.remote}:${remotePort}` },
        ...{ hostLocal: flow.stream?.local ?? "", hostRemote: flow.stream?.remote ?? "", state: flow.state, forward: flow.forward },
        ...{ bytesFromGuest: BigInt(flow.bytesFromGuest), bytesToGuest: BigInt(flow.bytesToGuest), retransmitted: BigInt(flow.retransmitted) },
        ...times(flow),
      });
    }
    for (const mapping of this.udp.mappings()) {
      const guest = formatIpv4(mapping.guest);
      const last = [...mapping.sent].at(-1);
      out.push({
        ...{ port: port(guest), protocol: "udp", guestLocal: `${guest}:${mapping.guestPort}`, state: "", forward: "" },
        guestRemote: last ? `${formatIpv4(last[1].destination)}:${last[0].slice(last[0].lastIndexOf(":") + 1)}` : "",
        ...{ hostLocal: mapping.socket.local, hostRemote: last?.[0] ?? "", retransmitted: 0n },
        ...{ bytesFromGuest: BigInt(mapping.bytesFromGuest), bytesToGuest: BigInt(mapping.bytesToGuest) },
        ...times(mapping),
      });
    }
    for (const peer of this.udp.peers) {
      const guest = formatIpv4(peer.guest);
      const gateway = formatIpv4(this.#gateway);
      out.push({
        ...{ port: port(guest), protocol: "udp", guestLocal: `${guest}:${peer.guestPort}`, guestRemote: `${gateway}:${peer.gatewayPort}`, state: "" },
        ...{ hostLocal: peer.forward.slice(4), hostRemote: `${peer.from.address}:${peer.from.port}`, retransmitted: 0n, forward: peer.forward },
        ...{ bytesFromGuest: BigInt(peer.bytesFromGuest), bytesToGuest: BigInt(peer.bytesToGuest) },
        ...times(peer),
      });
    }
    return out;
  }
  close(): void {
    this.tcp.close();
    this.udp.close();
  }
}
const ms = (value: number): bigint => BigInt(Math.round(value));
