import type { Flow, Frame, Offload } from "@polyvisor/contracts/network";
import type { Clock } from "@polyvisor/service-kit";
import {
  ARP_OPERATION,
  DHCP_CLIENT_PORT,
  DHCP_SERVER_PORT,
  DNS_PORT,
  emitArp,
  emitDhcp,
  emitEthernet,
  emitIcmp,
  emitIpv4,
  emitTcp,
  emitUdp,
  ETHERNET_HEADER_BYTES,
  ETHERTYPE,
  formatIpv4,
  fragmentIpv4,
  icmpErrorAbout,
  ICMP_TYPE,
  inSubnet,
  IP_PROTOCOL,
  IPV4_BROADCAST,
  IPV4_FLAG,
  IPV4_HEADER_BYTES,
  ipv4Datagram,
  isMulticastIpv4,
  MAC_BROADCAST,
  parseArp,
  parseDhcp,
  parseEthernet,
  parseIcmp,
  parseIpv4Packet,
  parseTcp,
  parseUdp,
  pseudoHeaderSum,
  resetFor,
  subnetBroadcast,
  timeExceeded,
  unreachable,
  UNREACHABLE_CODE,
  writeIpv4Header,
  writeMac,
  writeU16,
  type EthernetFrame,
  type IcmpMessage,
  type Ipv4Address,
  type Ipv4Packet,
  type MacAddress,
} from "@polyvisor/wire";
import { DhcpServer, type DhcpNetwork, type Lease } from "./dhcp-server.ts";
import { Ipv6Gateway } from "./gateway6.ts";
import { DnsForwarder, type DnsUpstream } from "./dns-forwarder.ts";
import { dnsStream } from "./dns-stream.ts";
import type { SwitchPort } from "./l2-switch.ts";
import type { ForwardTarget } from "./nat/forwards.ts";
import type { GuestPath, GuestSide } from "./nat/guest-path.ts";
import type { HostNetwork } from "./nat/host-network.ts";
import { Nat } from "./nat/nat.ts";
import { Reassembly } from "./nat/reassembly.ts";
import { Neighbours } from "./neighbours.ts";
import type { NameTable } from "./networks.ts";

/** What one gateway is: its addresses, and which of its services it has. */
export interface GatewaySettings extends DhcpNetwork {
  readonly services: {
    /** Addresses for guests. Without DNS and NAT it names neither a resolver nor a router. */
    readonly dhcp: boolean;
    readonly dns: boolean;
    /** The way to the world. */
    readonly nat: boolean;
    /** The gateway's own address stands for the host: its services on 127.0.0.1. */
    readonly host: boolean;
  };
}
/** What a gateway needs of its surroundings. */
export interface GatewayEnvironment {
  readonly clock: Clock;
  readonly dns: DnsUpstream;
  readonly dnsTimeoutMs: number;
  readonly host: HostNetwork;
  /** Every new or changed lease. */
  leaseGranted(lease: Lease): void;
  /** Runs what sends frames outside of a frame's arrival, so that they go out together afterwards. */
  turn(run: () => void): void;
  /** Calls `run` once when the batch of frames that is coming in is over. */
  afterTurn(run: () => void): void;
  /** All leases, whenever one was given, renewed or ended: before the client is told. */
  leasesChanged(leases: readonly Lease[]): void;
  /** Whether a port has this address; absent: the only guest there is may have any. */
  readonly isPort?: (mac: MacAddress) => boolean;
  /** Of an earlier life. */
  readonly storedLeases: readonly Lease[];
  /** Names that the DNS answers itself. */
  readonly names: NameTable;
}

/** 52:55 and the IPv4 address, as slirp has it: locally administered, and readable in a capture. */
export function gatewayMac(address: Ipv4Address): MacAddress {
  return 0x5255 * 2 ** 32 + address;
}

/**
 * A station on a network: router and DNS server, each an address of its own. It answers ARP, DHCP, ICMP echo and DNS; what
 * is for the host or beyond the subnet goes to the NAT. It stands at the other end of one guest's wire (NAT) or on a switch
 * with many (NAT_NETWORK, HOST_ONLY): `deliver` is its receiving side, `send` its transmitting side.
 */
export class Gateway implements SwitchPort, GuestSide {
  readonly nat: Nat;
  readonly #counters = { gateway_frames: 0, gateway_ignored: 0 };
  readonly #network: GatewaySettings;
  readonly #environment: GatewayEnvironment;
  readonly dhcp: DhcpServer;
  readonly #dns: DnsForwarder;
  readonly #send: (frame: Frame) => void;
  readonly #neighbours: Neighbours;
  readonly #reassembly: Reassembly;
  readonly #ipv6: Ipv6Gateway;
  #identification = 0;

  constructor(settings: GatewaySettings, environment: GatewayEnvironment, send: (frame: Frame) => void) {
    const { clock, dns, dnsTimeoutMs, host, names } = environment;
    this.#network = settings;
    this.#environment = environment;
    this.dhcp = new DhcpServer(settings, () => clock.now(), {
      granted: (lease) => environment.leaseGranted(lease),
      changed: (leases) => environment.leasesChanged(leases),
      ...(environment.isPort ? { isPort: environment.isPort } : {}),
    });
    this.dhcp.restore(environment.storedLeases);
    this.#dns = new DnsForwarder(dns, clock, dnsTimeoutMs, names);
    this.#send = send;
    this.#neighbours = new Neighbours(clock, (address) => this.#askFor(address), send);
    this.#reassembly = new Reassembly(clock);
    this.#ipv6 = new Ipv6Gateway({ mac: gatewayMac(settings.gateway), subnetBase: settings.subnet.base, mtu: settings.mtu }, send);
    this.nat = new Nat(this, host, clock, settings.gateway);
  }

  /** A frame from a guest. Malformed ones are counted and forgotten. */
  deliver({ data, offload }: Frame): void {
    this.#counters.gateway_frames++;
    const frame = parseEthernet(data);
    // A checksum that was left to us has not been on any wire that could damage it (virtio 1.2, 5.1.6.2).
    if (!frame || !this.#handle(frame, offload?.needsChecksum === true)) this.#counters.gateway_ignored++;
  }
  leases(): Lease[] {
    return this.dhcp.leases();
  }
  flows(port: (guest: string) => string): Flow[] {
    return this.nat.flows(port);
  }
  /** Where forwarded connections go: the guest with this MAC, as DHCP or its own packets have it. */
  forwardTarget(port: string, machine: string, mac: MacAddress): ForwardTarget {
    return {
      ...{ port, machine, nat: this.nat, gateway: this.#network.gateway },
      guestAddress: () => this.leases().find((lease) => lease.mac === mac)?.address ?? this.#neighbours.addressOf(mac),
    };
  }
  get counters(): Record<string, number> {
    return { ...this.#counters, ...this.#dns.counters, ...this.nat.counters, ...this.#reassembly.counters, ...this.#neighbours.counters };
  }
  close(): void {
    this.#dns.close();
    this.nat.close();
    this.#neighbours.close();
  }

  #handle(frame: EthernetFrame, verified: boolean): boolean {
    if (frame.vlan) return false;
    if (frame.etherType === ETHERTYPE.ARP) return this.#arp(frame);
    if (frame.etherType === ETHERTYPE.IPV6) return this.#ipv6.handle(frame);
    const packet = frame.etherType === ETHERTYPE.IPV4 ? parseIpv4Packet(frame.payload) : undefined;
    if (!packet) return false;
    const { destination, source } = packet;
    const { subnet, gateway } = this.#network;
    const broadcast = destination === IPV4_BROADCAST || destination === subnetBroadcast(subnet);
    if (packet.protocol === IP_PROTOCOL.UDP && (broadcast || destination === gateway) && this.#bootp(packet, verified)) return true;
    // What follows may be answered with errors, which a broadcast, a group or an unspecified source must never cause (RFC 1122, 3.2.2).
    if (broadcast || isMulticastIpv4(destination) || !inSubnet(subnet, source) || this.#isOurs(source)) return false;
    // On a switch, what one guest has for another also comes by while the switch learns.
    if (frame.destination !== gatewayMac(gateway) && frame.destination !== gatewayMac(this.#network.dns) && frame.destination !== MAC_BROADCAST) return false;
    this.#neighbours.learn(source, frame.source);
    const whole = this.#reassembly.add(packet);
    if (whole) this.#route(whole, verified && whole === packet);
    return true;
  }
  #route(packet: Ipv4Packet, verified: boolean): void {
    const { destination, timeToLive } = packet;
    if (this.#isOurs(destination)) this.#local(packet, verified);
    else if (inSubnet(this.#network.subnet, destination)) this.unreachable(packet, UNREACHABLE_CODE.HOST);
    else if (!this.#network.services.nat) this.unreachable(packet, UNREACHABLE_CODE.NET);
    else if (timeToLive <= 1) this.#error(packet, timeExceeded(packet)); // RFC 1812, 5.3.1: a router is one hop
    else this.nat.outbound(packet, verified);
  }
  #isOurs(address: Ipv4Address): boolean {
    const { gateway, dns, services } = this.#network;
    return address === gateway || (services.dns && address === dns);
  }

  /** Requests for our addresses, also from hosts that have none yet (probes: RFC 5227, 2.1.1); and answers to our own. */
  #arp(frame: EthernetFrame): boolean {
    const arp = parseArp(frame.payload);
    if (!arp) return false;
    const { senderAddress, senderMac, targetAddress } = arp;
    if (inSubnet(this.#network.subnet, senderAddress) && !this.#isOurs(senderAddress) && senderAddress !== 0 && this.#isOurs(targetAddress)) {
      this.#neighbours.learn(senderAddress, senderMac);
      if (arp.operation === ARP_OPERATION.REPLY) return true;
    }
    if (arp.operation !== ARP_OPERATION.REQUEST || !this.#isOurs(targetAddress)) return false;
    const mac = gatewayMac(targetAddress);
    const payload = emitArp({ operation: ARP_OPERATION.REPLY, senderMac: mac, senderAddress: targetAddress, targetMac: senderMac, targetAddress: senderAddress });
    this.#sendFrame(emitEthernet({ destination: frame.source, source: mac, etherType: ETHERTYPE.ARP, payload }));
    return true;
  }
  #askFor(targetAddress: Ipv4Address): void {
    const { gateway } = this.#network;
    const senderMac = gatewayMac(gateway);
    const payload = emitArp({ operation: ARP_OPERATION.REQUEST, senderMac, senderAddress: gateway, targetMac: 0, targetAddress });
    this.turn(() => this.#sendFrame(emitEthernet({ destination: MAC_BROADCAST, source: senderMac, etherType: ETHERTYPE.ARP, payload })));
  }

  /** DHCP comes from 0.0.0.0 to everybody, so it is looked at before addresses are. False: not DHCP. */
  #bootp(packet: Ipv4Packet, verified: boolean): boolean {
    if (!this.#network.services.dhcp || packet.fragmentOffset > 0 || (packet.flags & IPV4_FLAG.MORE_FRAGMENTS) !== 0) return false;
    const udp = parseUdp(packet.payload, packet, verified);
    if (!udp || udp.destinationPort !== DHCP_SERVER_PORT) return false;
    const message = parseDhcp(udp.payload);
    const reply = message && this.dhcp.handle(message);
    if (!reply) return true;
    const pair = { source: this.#network.gateway, destination: reply.destination };
    const datagram = { sourcePort: DHCP_SERVER_PORT, destinationPort: DHCP_CLIENT_PORT, payload: emitDhcp(reply.message) };
    this.#sendIpv4(ipv4Datagram({ ...pair, protocol: IP_PROTOCOL.UDP, payload: emitUdp(datagram, pair) }), reply.destinationMac);
    return true;
  }

  /** To .2 or .3 itself. */
  #local(packet: Ipv4Packet, verified: boolean): void {
    const { services, dns } = this.#network;
    if (packet.protocol === IP_PROTOCOL.ICMP) return this.#echo(packet);
    if (packet.protocol !== IP_PROTOCOL.TCP && packet.protocol !== IP_PROTOCOL.UDP) return this.unreachable(packet, UNREACHABLE_CODE.PROTOCOL);
    if (services.dns && packet.destination === dns) {
      if (packet.protocol === IP_PROTOCOL.TCP) return this.#dnsOverTcp(packet, verified);
      return this.#dnsOverUdp(packet, verified);
    }
    if (services.host) this.nat.outbound(packet, verified);
    else if (packet.protocol === IP_PROTOCOL.TCP) this.reset(packet);
    else this.unreachable(packet, UNREACHABLE_CODE.PORT);
  }
  #echo(packet: Ipv4Packet): void {
    const echo = parseIcmp(packet.payload);
    if (echo?.type !== ICMP_TYPE.ECHO_REQUEST) return;
    const payload = emitIcmp({ ...echo, type: ICMP_TYPE.ECHO_REPLY });
    this.#toGuest(ipv4Datagram({ source: packet.destination, destination: packet.source, protocol: IP_PROTOCOL.ICMP, payload }));
  }
  #dnsOverUdp(packet: Ipv4Packet, verified: boolean): void {
    const udp = parseUdp(packet.payload, packet, verified);
    if (!udp) return;
    if (udp.destinationPort !== DNS_PORT) return this.unreachable(packet, UNREACHABLE_CODE.PORT);
    const { source, destination } = packet;
    this.#dns.forward(udp.payload, "udp", (response) => this.nat.udp.deliver(source, udp.sourcePort, destination, DNS_PORT, response));
  }
  #dnsOverTcp(packet: Ipv4Packet, verified: boolean): void {
    this.nat.tcp.outbound(packet, "dns", verified, (to, events) => dnsStream(to.port === DNS_PORT ? this.#dns : undefined, events));
  }

  // What the NAT sees of the guests (GuestSide).

  turn(run: () => void): void {
    this.#environment.turn(run);
  }
  afterTurn(run: () => void): void {
    this.#environment.afterTurn(run);
  }
  path(guest: Ipv4Address, remote: Ipv4Address): GuestPath {
    return {
      guest: formatIpv4(guest),
      remote: formatIpv4(remote),
      mtu: this.#network.mtu,
      headerBytes: ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES,
      ipHeaderBytes: IPV4_HEADER_BYTES,
      open: (protocol, transportBytes) => {
        const bytes = Buffer.allocUnsafe(ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + transportBytes);
        writeMac(bytes, 6, this.#macTowards(remote));
        writeU16(bytes, 12, ETHERTYPE.IPV4);
        const header = ipv4Datagram({ protocol, source: remote, destination: guest, payload: NOTHING, identification: this.#nextIdentification() });
        writeIpv4Header(bytes, ETHERNET_HEADER_BYTES, header, transportBytes);
        return bytes;
      },
      pseudoHeader: (protocol, transportBytes) => pseudoHeaderSum(remote, guest, protocol, transportBytes),
      send: (data, offload) => this.#neighbours.send(guest, { data, offload }),
      sendDatagram: (protocol, payload) => this.#toGuest(ipv4Datagram({ source: remote, destination: guest, protocol, payload })),
    };
  }
  unreachable(about: Ipv4Packet, code: number): void {
    this.#error(about, unreachable(about, code));
  }
  icmpError(about: Ipv4Packet, { type, code, from }: { readonly type: number; readonly code: number; readonly from: Ipv4Address }): void {
    this.#error(about, icmpErrorAbout(about, type, code), from);
  }
  /** From the router, as a host on the way would say it; about the router's own ports, from the address that was asked. */
  #error(about: Ipv4Packet, error: IcmpMessage | undefined, source = this.#isOurs(about.destination) ? about.destination : this.#network.gateway): void {
    if (!error) return;
    this.#toGuest(ipv4Datagram({ source, destination: about.source, protocol: IP_PROTOCOL.ICMP, payload: emitIcmp(error) }));
  }
  reset(packet: Ipv4Packet): void {
    const segment = parseTcp(packet.payload, packet, true);
    const reset = segment && resetFor(segment);
    if (!reset) return;
    const back = { source: packet.destination, destination: packet.source };
    this.#toGuest(ipv4Datagram({ ...back, protocol: IP_PROTOCOL.TCP, payload: emitTcp(reset, back) }));
  }

  #macTowards(remote: Ipv4Address): MacAddress {
    const { gateway, dns } = this.#network;
    return gatewayMac(remote === dns ? dns : gateway);
  }
  #nextIdentification(): number {
    this.#identification = (this.#identification + 1) & 0xffff;
    return this.#identification;
  }
  #toGuest(packet: Ipv4Packet): void {
    this.#fragments(packet, 0, (data) => this.#neighbours.send(packet.destination, { data, offload: undefined }));
  }
  #sendIpv4(packet: Ipv4Packet, destination: MacAddress): void {
    this.#fragments(packet, destination, (data) => this.#sendFrame(data));
  }
  /** Fragments of one datagram share an identification (RFC 6864, 4.2). */
  #fragments(packet: Ipv4Packet, destination: MacAddress, send: (data: Uint8Array) => void): void {
    const source = this.#macTowards(packet.source);
    for (const fragment of fragmentIpv4({ ...packet, identification: this.#nextIdentification() }, this.#network.mtu)) {
      send(emitEthernet({ destination, source, etherType: ETHERTYPE.IPV4, payload: emitIpv4(fragment) }));
    }
  }
  #sendFrame(data: Uint8Array, offload?: Offload): void {
    this.#send({ data, offload });
  }
}
const NOTHING = new Uint8Array(0);
