import {
  DHCP_MESSAGE,
  DHCP_OPTION,
  dhcpAddressOption,
  dhcpOption,
  dhcpU16,
  dhcpU32,
  dhcpU8,
  inSubnet,
  IPV4_BROADCAST,
  MAC_BROADCAST,
  subnetBroadcast,
  subnetMask,
  type DhcpMessage,
  type DhcpOption,
  type Ipv4Address,
  type Ipv4Subnet,
  type MacAddress,
} from "@polyvisor/wire";

/** What the server tells its clients. */
export interface DhcpNetwork {
  readonly subnet: Ipv4Subnet;
  /** The server's own address, and the router's. */
  readonly gateway: Ipv4Address;
  readonly dns: Ipv4Address;
  readonly mtu: number;
  /** Addresses to give out, in this order. */
  readonly first: Ipv4Address;
  readonly last: Ipv4Address;
  readonly leaseSeconds: number;
  /** Services that are not there are not named to clients. */
  readonly services: { readonly dns: boolean; readonly nat: boolean };
}
export interface Lease {
  readonly mac: MacAddress;
  readonly address: Ipv4Address;
  readonly hostname: string;
  /** Unix milliseconds. */
  readonly expiresAt: number;
}
/** A message and where it goes. */
export interface DhcpReply {
  readonly message: DhcpMessage;
  readonly destination: Ipv4Address;
  readonly destinationMac: MacAddress;
}

/** An address that was offered is kept for the client so long (RFC 2131, 3.1.2 leaves it to the server). */
const OFFER_MS = 60_000;
/** An address that a client found in use is not given out for so long (RFC 2131, 4.3.3). */
const DECLINED_MS = 600_000;

/** Who hears of leases, and knows the clients. */
export interface LeaseListeners {
  /**
   * Whether the address is a port's own. The others, which a guest may have invented, share half of the pool: nobody's
   * starvation attack takes an address from a machine. Absent: all are.
   */
  isPort?(mac: MacAddress): boolean;
  /** A new or changed lease, not a renewal. */
  granted(lease: Lease): void;
  /** All leases, whenever one was given, renewed or ended: before the client is told. */
  changed(leases: readonly Lease[]): void;
}

interface Binding extends Lease {
  /** False while it is only offered. */
  readonly bound: boolean;
}

/**
 * A DHCP server (RFC 2131, 4.3) for one small subnet. Clients are known by their hardware address and not by their client
 * identifier, so that a machine keeps its address from the initramfs's client to the one of its distribution.
 */
export class DhcpServer {
  readonly #network: DhcpNetwork;
  readonly #now: () => number;
  readonly #listeners: LeaseListeners;
  readonly #bindings = new Map<MacAddress, Binding>();
  /** Addresses kept for one client each, given out or not. */
  readonly #reserved = new Map<MacAddress, Ipv4Address>();
  readonly #declined = new Map<Ipv4Address, number>();

  /** `now` in Unix milliseconds. */
  constructor(network: DhcpNetwork, now: () => number, listeners: LeaseListeners) {
    this.#network = network;
    this.#now = now;
    this.#listeners = listeners;
  }

  /** Keeps an address for a client; one that it has now is taken back at its next renewal. */
  reserve(mac: MacAddress, address: Ipv4Address): void {
    this.#reserved.set(mac, address);
    if (this.#bindings.get(mac)?.address !== address) this.#bindings.delete(mac);
  }
  unreserve(mac: MacAddress): void {
    this.#reserved.delete(mac);
  }
  /** Leases of an earlier life of the server, as far as they still hold. */
  restore(leases: readonly Lease[]): void {
    const now = this.#now();
    for (const lease of leases) {
      if (lease.expiresAt > now && inSubnet(this.#network.subnet, lease.address)) this.#bindings.set(lease.mac, { ...lease, bound: true });
    }
  }
  /** Whose the address is now, by lease or reservation. */
  holder(address: Ipv4Address): MacAddress | undefined {
    for (const [mac, reserved] of this.#reserved) if (reserved === address) return mac;
    const now = this.#now();
    for (const [mac, binding] of this.#bindings) if (binding.address === address && binding.bound && binding.expiresAt > now) return mac;
    return undefined;
  }

  leases(): Lease[] {
    const now = this.#now();
    return [...this.#bindings.values()].filter((binding) => binding.bound && binding.expiresAt > now);
  }

  /** Undefined: nothing is to be said. */
  handle(message: DhcpMessage): DhcpReply | undefined {
    if (message.op !== 1 || message.relayAddress !== 0) return undefined; // BOOTREQUEST of a client on this link
    switch (dhcpOption(message, DHCP_OPTION.MESSAGE_TYPE)?.[0]) {
      case DHCP_MESSAGE.DISCOVER:
        return this.#discover(message);
      case DHCP_MESSAGE.REQUEST:
        return this.#request(message);
      case DHCP_MESSAGE.DECLINE:
        return this.#decline(message);
      case DHCP_MESSAGE.RELEASE:
        return this.#release(message);
      case DHCP_MESSAGE.INFORM: // 4.3.5: parameters only, no address and no lease time
        return this.#reply(message, DHCP_MESSAGE.ACK, { address: 0, options: this.#parameters() });
      default:
        return undefined;
    }
  }

  /** 4.3.1: the client's own address, else the one it asks for, else the first free one. */
  #discover(message: DhcpMessage): DhcpReply | undefined {
    const { clientMac } = message;
    const requested = dhcpAddressOption(message, DHCP_OPTION.REQUESTED_ADDRESS);
    const own = this.#bindings.get(clientMac);
    const address = this.#reserved.get(clientMac) ?? own?.address ?? (requested !== undefined && this.#free(requested, clientMac) ? requested : this.#firstFree(clientMac));
    if (address === undefined) return undefined; // none left: silence, another server may have some
    if (!own && !this.#mayHaveOne(clientMac)) return undefined;
    if (!own) {
      this.#bindings.set(clientMac, { mac: clientMac, address, hostname: "", expiresAt: this.#now() + OFFER_MS, bound: false });
    }
    return this.#reply(message, DHCP_MESSAGE.OFFER, { address, options: [...this.#times(), ...this.#parameters()] });
  }

  /** 4.3.2: answers an offer (server identifier), or confirms an address after a reboot or for renewal. */
  #request(message: DhcpMessage): DhcpReply | undefined {
    const { clientMac, clientAddress } = message;
    const server = dhcpAddressOption(message, DHCP_OPTION.SERVER_IDENTIFIER);
    if (server !== undefined && server !== this.#network.gateway) {
      if (!this.#bindings.get(clientMac)?.bound) this.#bindings.delete(clientMac); // it took another server's offer
      return undefined;
    }
    const wanted = dhcpAddressOption(message, DHCP_OPTION.REQUESTED_ADDRESS) ?? clientAddress;
    const own = this.#bindings.get(clientMac);
    const reserved = this.#reserved.get(clientMac);
    const acceptable =
      own || reserved !== undefined ? (reserved ?? own!.address) === wanted : server === undefined && this.#free(wanted, clientMac) && this.#mayHaveOne(clientMac);
    if (!acceptable) return this.#reply(message, DHCP_MESSAGE.NAK, { address: 0, options: [] });
    const hostname = printable(dhcpOption(message, DHCP_OPTION.HOST_NAME)) || (own?.hostname ?? "");
    const expiresAt = this.#now() + this.#network.leaseSeconds * 1000;
    const lease = { mac: clientMac, address: wanted, hostname, expiresAt, bound: true };
    this.#bindings.set(clientMac, lease);
    this.#listeners.changed(this.leases());
    if (!own?.bound || own.hostname !== hostname) this.#listeners.granted(lease);
    return this.#reply(message, DHCP_MESSAGE.ACK, { address: wanted, options: [...this.#times(), ...this.#parameters()] });
  }
  #decline(message: DhcpMessage): undefined {
    const address = dhcpAddressOption(message, DHCP_OPTION.REQUESTED_ADDRESS);
    if (address === undefined || this.#bindings.get(message.clientMac)?.address !== address) return;
    this.#bindings.delete(message.clientMac);
    this.#declined.set(address, this.#now() + DECLINED_MS);
  }
  #release(message: DhcpMessage): undefined {
    if (this.#bindings.get(message.clientMac)?.address !== message.clientAddress) return;
    this.#bindings.delete(message.clientMac);
    this.#listeners.changed(this.leases());
  }

  #mayHaveOne(mac: MacAddress): boolean {
    const { isPort } = this.#listeners;
    if (!isPort || isPort(mac)) return true;
    const now = this.#now();
    let strangers = 0;
    for (const [other, { expiresAt }] of this.#bindings) if (expiresAt > now && !isPort(other)) strangers++;
    return strangers < (this.#network.last - this.#network.first + 1) / 2;
  }
  #free(address: Ipv4Address, mac: MacAddress): boolean {
    const { first, last, subnet } = this.#network;
    if (address < first || address > last || !inSubnet(subnet, address)) return false;
    for (const [owner, reserved] of this.#reserved) if (reserved === address && owner !== mac) return false;
    const now = this.#now();
    const declinedUntil = this.#declined.get(address);
    if (declinedUntil !== undefined && declinedUntil > now) return false;
    this.#declined.delete(address);
    for (const [owner, binding] of this.#bindings) {
      if (binding.address !== address || owner === mac) continue;
      if (binding.expiresAt > now) return false;
      this.#bindings.delete(owner);
    }
    return true;
  }
  #firstFree(mac: MacAddress): Ipv4Address | undefined {
    for (let address = this.#network.first; address <= this.#network.last; address++) if (this.#free(address, mac)) return address;
    return undefined;
  }

  #times(): DhcpOption[] {
    const { leaseSeconds } = this.#network;
    return [
      dhcpU32(DHCP_OPTION.LEASE_TIME, leaseSeconds),
      dhcpU32(DHCP_OPTION.RENEWAL_TIME, Math.floor(leaseSeconds / 2)), // T1, T2: RFC 2131, 4.4.5
      dhcpU32(DHCP_OPTION.REBINDING_TIME, Math.floor((leaseSeconds * 7) / 8)),
    ];
  }
  #parameters(): DhcpOption[] {
    const { subnet, gateway, dns, mtu, services } = this.#network;
    return [
      dhcpU32(DHCP_OPTION.SUBNET_MASK, subnetMask(subnet.prefix)),
      ...(services.nat ? [dhcpU32(DHCP_OPTION.ROUTER, gateway)] : []),
      ...(services.dns ? [dhcpU32(DHCP_OPTION.DNS_SERVER, dns)] : []),
      dhcpU32(DHCP_OPTION.BROADCAST_ADDRESS, subnetBroadcast(subnet)),
      dhcpU16(DHCP_OPTION.INTERFACE_MTU, mtu),
    ];
  }
  /** Fields and destination as RFC 2131, table 3 and section 4.1 say. */
  #reply(message: DhcpMessage, type: number, { address, options }: { address: Ipv4Address; options: DhcpOption[] }): DhcpReply {
    const nak = type === DHCP_MESSAGE.NAK;
    const unicastTo = message.clientAddress || address;
    const broadcast = nak || (message.clientAddress === 0 && message.broadcast) || unicastTo === 0;
    const identifier = dhcpOption(message, DHCP_OPTION.CLIENT_IDENTIFIER); // echoed: RFC 6842, 3
    return {
      destination: broadcast ? IPV4_BROADCAST : unicastTo,
      destinationMac: broadcast ? MAC_BROADCAST : message.clientMac,
      message: {
        op: 2, // BOOTREPLY
        hops: 0,
        transactionId: message.transactionId,
        seconds: 0,
        broadcast: message.broadcast,
        clientAddress: type === DHCP_MESSAGE.ACK ? message.clientAddress : 0,
        yourAddress: address,
        serverAddress: 0,
        relayAddress: 0,
        clientMac: message.clientMac,
        serverName: new Uint8Array(64),
        file: new Uint8Array(128),
        options: [
          dhcpU8(DHCP_OPTION.MESSAGE_TYPE, type),
          dhcpU32(DHCP_OPTION.SERVER_IDENTIFIER, this.#network.gateway),
          ...options,
          ...(identifier && identifier.length <= 255 ? [{ code: DHCP_OPTION.CLIENT_IDENTIFIER, data: identifier }] : []),
        ],
      },
    };
  }
}

/** A host name as far as it can be shown: letters, digits, "-", "." (RFC 1123, 2.1), at most 63. */
function printable(bytes: Uint8Array | undefined): string {
  const text = String.fromCharCode(...(bytes ?? []).slice(0, 63));
  return /^[A-Za-z0-9.-]*/.exec(text)![0];
}
