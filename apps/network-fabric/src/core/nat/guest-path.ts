import type { Offload } from "@polyvisor/contracts/network";
import type { Ipv4Packet } from "@polyvisor/wire";

/** The way from one address of the gateway to one guest: makes frames, and sends them. */
export interface GuestPath {
  /** Of the guest, and of whom it talks to, as people write them. */
  readonly guest: string;
  readonly remote: string;
  /** Bytes that a datagram may have, header and all. */
  readonly mtu: number;
  /** Bytes in front of the transport's header in a frame, and of the IP header alone. */
  readonly headerBytes: number;
  readonly ipHeaderBytes: number;
  /** A new frame with its headers, and room for the transport's bytes. */
  open(protocol: number, transportBytes: number): Uint8Array;
  /** Sum of the pseudo header. */
  pseudoHeader(protocol: number, transportBytes: number): number;
  send(data: Uint8Array, offload: Offload | undefined): void;
  /** A datagram of any size, cut to fragments if need be. */
  sendDatagram(protocol: number, transport: Uint8Array): void;
}

/** Answers that a NAT gives about a guest's own packet when it will not carry it. */
export interface Refusal {
  /** ICMP "destination unreachable" with this code. */
  unreachable(packet: Ipv4Packet, code: number): void;
  /** A TCP reset for the segment in the packet. */
  reset(packet: Ipv4Packet): void;
}

/** The guest's side, as flows see it. */
export interface GuestSide extends Refusal {
  path(guest: number, remote: number): GuestPath;
  /** An ICMP error about a guest's packet, as from whoever sent it to the host. */
  icmpError(packet: Ipv4Packet, error: { readonly type: number; readonly code: number; readonly from: number }): void;
  /** Runs what sends frames outside of a frame's arrival, so that they go out together. */
  turn(run: () => void): void;
  /** Calls `run` once when the batch of frames that is coming in is over. */
  afterTurn(run: () => void): void;
}
