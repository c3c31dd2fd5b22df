import type { Ipv4Packet } from "@polyvisor/wire";

/** Answers that a NAT gives to the guest's own packets when it will not carry them. */
export interface Refusal {
  /** ICMP "destination unreachable" with this code. */
  unreachable(packet: Ipv4Packet, code: number): void;
  /** A TCP reset for the segment in the packet. */
  reset(packet: Ipv4Packet): void;
}

/**
 * Where packets for the world behind the gateway go: the seam for flows through the host's sockets. One instance per
 * gateway.
 */
export interface NatBackend {
  /** A datagram (never a fragment) from the guest to an address outside the subnet. */
  outbound(packet: Ipv4Packet): void;
  close(): void;
}
export type NatBackendFactory = (guest: Refusal & { send(packet: Ipv4Packet): void }) => NatBackend;
