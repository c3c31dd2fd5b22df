import {
  ARP_OPERATION,
  completeFrame,
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
  ETHERTYPE,
  fragmentIpv4,
  ICMP_TYPE,
  inSubnet,
  IP_PROTOCOL,
  IPV4_BROADCAST,
  ipv4Datagram,
  isFragment,
  isMulticastIpv4,
  MAC_BROADCAST,
  parseArp,
  parseDhcp,
  parseEthernet,
  parseIcmp,
  parseIpv4Packet,
  parseTcp,
  parseUdp,
  resetFor,
  subnetBroadcast,
  unreachable,
  UNREACHABLE_CODE,
  type EthernetFrame,
  type Ipv4Address,
  type Ipv4Packet,
  type MacAddress,
} from "@polyvisor/wire";
import type { Frame } from "@polyvisor/contracts/network";
import type { Clock } from "@polyvisor/service-kit";
import { DhcpServer, type DhcpNetwork, type Lease } from "./dhcp-server.ts";
import { DnsForwarder, type DnsUpstream } from "./dns-forwarder.ts";
import type { NatBackend, NatBackendFactory } from "./nat-backend.ts";
import type { SwitchPort } from "./l2-switch.ts";
import type { NameTable } from "./networks.ts";

/** What one gateway is: its addresses, and which of its services it has. */
export interface GatewaySettings extends DhcpNetwork {
  /** DHCP: addresses for guests. Without DNS and NAT it names neither a resolver nor a router. */
  readonly services: { readonly dhcp: boolean; readonly dns: boolean; readonly nat: boolean };
}
/** What a gateway needs of its surroundings. */
export interface GatewayEnvironment {
  readonly clock: Clock;
  readonly dns: DnsUpstream;
  readonly dnsTimeoutMs: number;
  readonly nat: NatBackendFactory;
  /** Every new or changed lease. */
  leaseGranted(lease: Lease): void;
  /** All leases, whenever one was given, renewed or ended: before the client is told. */
  leasesChanged(leases: readonly Lease[]): void;
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
 * A station on a network: router and DNS server, each an address of its own. It answers ARP, DHCP, ICMP echo and DNS;
 * everything beyond the subnet goes to the NAT backend. It stands at the other end of one guest's wire (NAT) or on a switch
 * with many (NAT_NETWORK, HOST_ONLY): `deliver` is its receiving side, `send` its transmitting side.
 */
export class Gateway implements SwitchPort {
  readonly #counters = { gateway_frames: 0, gateway_ignored: 0 };
  readonly #network: GatewaySettings;
  readonly dhcp: DhcpServer;
  readonly #dns: DnsForwarder;
  readonly #nat: NatBackend;
  readonly #send: (frame: Frame) => void;
  /** Where the guest at an address was last heard: for packets that the NAT sends on its own. */
  readonly #neighbours = new Map<Ipv4Address, MacAddress>();
  #identification = 0;

  constructor(settings: GatewaySettings, environment: GatewayEnvironment, send: (frame: Frame) => void) {
    const { clock, dns, dnsTimeoutMs, nat, names } = environment;
    this.#network = settings;
    this.dhcp = new DhcpServer(settings, () => clock.now(), {
      granted: (lease) => environment.leaseGranted(lease),
      changed: (leases) => environment.leasesChanged(leases),
    });
    this.dhcp.restore(environment.storedLeases);
    this.#dns = new DnsForwarder(dns, clock, dnsTimeoutMs, names);
    this.#send = send;
    this.#nat = nat({
      send: (packet) => this.#toGuest(packet),
      unreachable: (packet, code) => this.#unreachable(packet, code),
      reset: (packet) => this.#reset(packet),
    });
  }

  /** A frame from a guest. Malformed ones are counted and forgotten. */
  deliver({ data, offload }: Frame): void {
    this.#counters.gateway_frames++;
    const whole = completeFrame(data, offload);
    if (!whole) this.#counters.gateway_ignored++;
    for (const bytes of whole ?? []) {
      const frame = parseEthernet(bytes);
      if (!frame || !this.#handle(frame)) this.#counters.gateway_ignored++;
    }
  }
  leases(): Lease[] {
    return this.dhcp.leases();
  }
  get counters(): Record<string, number> {
    return { ...this.#counters, ...this.#dns.counters };
  }
  close(): void {
    this.#dns.close();
    this.#nat.close();
  }

  #handle(frame: EthernetFrame): boolean {
    if (frame.vlan) return false;
    if (frame.etherType === ETHERTYPE.ARP) return this.#arp(frame);
    const packet = frame.etherType === ETHERTYPE.IPV4 ? parseIpv4Packet(frame.payload) : undefined;
    if (!packet) return false;
    const { destination, source } = packet;
    const { subnet } = this.#network;
    const broadcast = destination === IPV4_BROADCAST || destination === subnetBroadcast(subnet);
    if (packet.protocol === IP_PROTOCOL.UDP && (broadcast || destination === this.#network.gateway) && this.#bootp(packet)) return true;
    // What follows may be answered with errors, which a broadcast, a group or an unspecified source must never cause (RFC 1122, 3.2.2).
    if (broadcast || isMulticastIpv4(destination) || !inSubnet(subnet, source) || this.#isOurs(source)) return false;
    this.#learn(source, frame.source);
    if (isFragment(packet)) return false;
    if (this.#isOurs(destination)) return this.#local(packet);
    if (inSubnet(subnet, destination)) this.#unreachable(packet, UNREACHABLE_CODE.HOST);
    else if (!this.#network.services.nat) this.#unreachable(packet, UNREACHABLE_CODE.NET);
    else this.#nat.outbound(packet);
    return true;
  }
  #isOurs(address: Ipv4Address): boolean {
    const { gateway, dns, services } = this.#network;
    return address === gateway || (services.dns && address === dns);
  }
  #learn(address: Ipv4Address, mac: MacAddress): void {
    if (this.#neighbours.has(address) || this.#neighbours.size < 256) this.#neighbours.set(address, mac);
  }

  /** Requests for our addresses, also from hosts that have none yet (probes: RFC 5227, 2.1.1). */
  #arp(frame: EthernetFrame): boolean {
    const arp = parseArp(frame.payload);
    if (!arp || arp.operation !== ARP_OPERATION.REQUEST || !this.#isOurs(arp.targetAddress)) return false;
    const mac = gatewayMac(arp.targetAddress);
    const payload = emitArp({
      operation: ARP_OPERATION.REPLY,
      senderMac: mac,
      senderAddress: arp.targetAddress,
      targetMac: arp.senderMac,
      targetAddress: arp.senderAddress,
    });
    this.#sendFrame(emitEthernet({ destination: frame.source, source: mac, etherType: ETHERTYPE.ARP, payload }));
    return true;
  }

  /** DHCP comes from 0.0.0.0 to everybody, so it is looked at before addresses are. False: not DHCP. */
  #bootp(packet: Ipv4Packet): boolean {
    const udp = isFragment(packet) ? undefined : parseUdp(packet.payload, packet);
    if (!udp || udp.destinationPort !== DHCP_SERVER_PORT) return false;
    if (!this.#network.services.dhcp) return false;
    const message = parseDhcp(udp.payload);
    const reply = message && this.dhcp.handle(message);
    if (!reply) return true;
    const pair = { source: this.#network.gateway, destination: reply.destination };
    const datagram = { sourcePort: DHCP_SERVER_PORT, destinationPort: DHCP_CLIENT_PORT, payload: emitDhcp(reply.message) };
    this.#sendIpv4(ipv4Datagram({ ...pair, protocol: IP_PROTOCOL.UDP, payload: emitUdp(datagram, pair) }), reply.destinationMac);
    return true;
  }

  /** To .2 or .3 itself. */
  #local(packet: Ipv4Packet): boolean {
    const back = { source: packet.destination, destination: packet.source };
    if (packet.protocol === IP_PROTOCOL.ICMP) {
      const echo = parseIcmp(packet.payload);
      if (echo?.type !== ICMP_TYPE.ECHO_REQUEST) return false;
      const payload = emitIcmp({ ...echo, type: ICMP_TYPE.ECHO_REPLY });
      this.#toGuest(ipv4Datagram({ ...back, protocol: IP_PROTOCOL.ICMP, payload }));
      return true;
    }
    if (packet.protocol === IP_PROTOCOL.TCP) {
      this.#reset(packet);
      return true;
    }
    if (packet.protocol !== IP_PROTOCOL.UDP) {
      this.#unreachable(packet, UNREACHABLE_CODE.PROTOCOL);
      return true;
    }
    const udp = parseUdp(packet.payload, packet);
    if (!udp) return false;
    if (!this.#network.services.dns || packet.destination !== this.#network.dns || udp.destinationPort !== DNS_PORT) {
      this.#unreachable(packet, UNREACHABLE_CODE.PORT);
      return true;
    }
    this.#dns.forward(udp.payload, (response) => {
      const datagram = { sourcePort: DNS_PORT, destinationPort: udp.sourcePort, payload: response };
      this.#toGuest(ipv4Datagram({ ...back, protocol: IP_PROTOCOL.UDP, payload: emitUdp(datagram, back) }));
    });
    return true;
  }

  #unreachable(about: Ipv4Packet, code: number): void {
    const error = unreachable(about, code);
    if (!error) return;
    // From the router, as a host on the way would say it; about the router's own ports, from the address that was asked.
    const source = this.#isOurs(about.destination) ? about.destination : this.#network.gateway;
    this.#toGuest(ipv4Datagram({ source, destination: about.source, protocol: IP_PROTOCOL.ICMP, payload: emitIcmp(error) }));
  }
  #reset(packet: Ipv4Packet): void {
    const segment = parseTcp(packet.payload, packet);
    const reset = segment && resetFor(segment);
    if (!reset) return;
    const back = { source: packet.destination, destination: packet.source };
    this.#toGuest(ipv4Datagram({ ...back, protocol: IP_PROTOCOL.TCP, payload: emitTcp(reset, back) }));
  }
  #toGuest(packet: Ipv4Packet): void {
    this.#sendIpv4(packet, this.#neighbours.get(packet.destination) ?? MAC_BROADCAST);
  }
  #sendIpv4(packet: Ipv4Packet, destination: MacAddress): void {
    const { mtu, gateway, dns } = this.#network;
    const source = gatewayMac(packet.source === dns ? dns : gateway);
    this.#identification = (this.#identification + 1) & 0xffff; // fragments of one datagram share it (RFC 6864, 4.2)
    for (const fragment of fragmentIpv4({ ...packet, identification: this.#identification }, mtu)) {
      this.#sendFrame(emitEthernet({ destination, source, etherType: ETHERTYPE.IPV4, payload: emitIpv4(fragment) }));
    }
  }
  #sendFrame(data: Uint8Array): void {
    this.#send({ data, offload: undefined });
  }
}
