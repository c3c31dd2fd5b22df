import type { Frame } from "@polyvisor/contracts/network";
import type { Ipv4Address, Ipv4Subnet, MacAddress } from "@polyvisor/wire";

/** A network interface of the host, ours to speak through. */
export interface HostInterface {
  readonly name: string;
  /** False: the host takes no more now; the frame is lost. */
  send(frame: Frame): boolean;
  /** The interface is gone when this returns. */
  close(): void;
}
export interface TapOptions {
  /** At most 15 characters; "%d" in it is the kernel's choice of a number. */
  readonly name: string;
  readonly mtu: number;
  /** Of the host on this interface: always the same, so that guests need not learn it anew. Absent: the kernel's choice. */
  readonly mac?: MacAddress | undefined;
  /** Of the host on this interface. */
  readonly address?: { readonly address: Ipv4Address; readonly prefix: number } | undefined;
  /** The bridge that it joins. */
  readonly bridge?: string | undefined;
  /** TUN_F_* of linux/if_tun.h: what the host may leave for us to do on frames; absent: nothing. */
  readonly offload?: number;
}
export type HostFrames = (frames: readonly Frame[]) => void;

/** What the fabric can do on the host; an adapter's. Methods throw ContractError that says what is missing. */
export interface HostInterfaces {
  /** Of all interfaces of the host. */
  subnets(): Ipv4Subnet[];
  isBridge(name: string): boolean;
  openTap(options: TapOptions, receive: HostFrames): HostInterface;
  /** Sends and receives on an interface that exists, beside the host's own stack. */
  openRaw(name: string, receive: HostFrames): HostInterface;
}
