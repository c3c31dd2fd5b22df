import { existsSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { ContractError } from "@polyvisor/contracts";
import type { Frame } from "@polyvisor/contracts/network";
import { parseIpv4, subnetMask, type Ipv4Subnet } from "@polyvisor/wire";
import type { HostFrames, HostInterface, HostInterfaces, TapOptions } from "../core/host-interfaces.ts";
import { FdPoller } from "./fd-poller.ts";
import { linuxCalls, O_NONBLOCK_RDWR, type LinuxCalls } from "./linux-calls.ts";
import { failure, ifreq, InterfaceSettings } from "./linux-interface.ts";
import { readVirtioHeader, VIRTIO_NET_HEADER_BYTES, writeVirtioHeader } from "./virtio-header.ts";
import { youngBuffer } from "@polyvisor/contracts";

/** linux/if_tun.h */
const TUNSETIFF = 0x4004_54ca;
const TUNSETVNETHDRSZ = 0x4004_54d8;
const TUNSETOFFLOAD = 0x4004_54d0;
const IFF_TAP = 2;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6: what the kernel may leave for us to do. */
export const TAP_OFFLOADS = { none: 0, checksum: 1, segmentation: 7 } as const;
/** packet(7) */
const AF_PACKET = 17;
const SOCK_RAW_NONBLOCK = 3 | 0o4000;
const ETH_P_ALL = 3;
const SOL_PACKET = 263;
const PACKET_ADD_MEMBERSHIP = 1;
const PACKET_MR_PROMISC = 1;
const PACKET_VNET_HDR = 15;

const READ_BYTES = 65_536 + 64;
/** From this size on a frame keeps the buffer that it was read into, instead of being copied out of it. */
const GIVEN_AWAY_BYTES = 32_768;
/** Frames of one interface in one turn of the event loop. */
const READS_PER_TURN = 128;

/** Interfaces of this Linux machine: TAP and packet sockets. Loads what it needs when the first is opened. */
export class LinuxInterfaces implements HostInterfaces {
  #poller: FdPoller | undefined;

  subnets(): Ipv4Subnet[] {
    return Object.values(networkInterfaces()).flatMap((addresses) =>
      (addresses ?? []).flatMap(({ family, address, cidr }) => {
        const prefix = Number(cidr?.split("/")[1]);
        const value = family === "IPv4" ? parseIpv4(address) : undefined;
        return value === undefined || !(prefix >= 0) ? [] : [{ base: (value & subnetMask(prefix)) >>> 0, prefix }];
      }),
    );
  }
  isBridge(name: string): boolean {
    if (process.platform === "linux" && !existsSync(`/sys/class/net/${name}`)) {
      throw new ContractError("not-found", `the host has no interface ${name}; it has ${Object.keys(networkInterfaces()).join(", ")} and those without addresses (ip link)`);
    }
    return existsSync(`/sys/class/net/${name}/bridge`);
  }

  openTap({ name, mtu, mac, address, bridge, offload = TAP_OFFLOADS.none }: TapOptions, receive: HostFrames): HostInterface {
    const calls = linuxCalls();
    const fd = calls.open("/dev/net/tun", O_NONBLOCK_RDWR);
    if (fd < 0) throw failure(calls, `open /dev/net/tun for interface ${name}`);
    try {
      const request = ifreq(name);
      request.writeUInt16LE(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 16);
      if (calls.ioctl(fd, TUNSETIFF, request) < 0) throw failure(calls, `make TAP interface ${name}`);
      const given = request.toString("latin1", 0, request.indexOf(0));
      const header = Buffer.alloc(4);
      header.writeInt32LE(VIRTIO_NET_HEADER_BYTES);
      if (calls.ioctl(fd, TUNSETVNETHDRSZ, header) < 0) throw failure(calls, `set the header size of ${given}`);
      if (calls.ioctlValue(fd, TUNSETOFFLOAD, offload) < 0) throw failure(calls, `set the offloads of ${given}`);
      const settings = new InterfaceSettings(calls);
      try {
        settings.setMtu(given, mtu);
        if (mac !== undefined) settings.setMac(given, mac);
        if (bridge !== undefined) settings.joinBridge(bridge, given);
        if (address) settings.setAddress(given, address.address, address.prefix);
        settings.setUp(given);
      } finally {
        settings.close();
      }
      return this.#opened(calls, given, fd, receive);
    } catch (error) {
      calls.close(fd);
      throw error;
    }
  }

  openRaw(name: string, receive: HostFrames): HostInterface {
    const calls = linuxCalls();
    const protocol = ((ETH_P_ALL & 0xff) << 8) | (ETH_P_ALL >> 8); // network byte order
    const fd = calls.socket(AF_PACKET, SOCK_RAW_NONBLOCK, 0);
    if (fd < 0) throw failure(calls, `open a packet socket on ${name}`);
    try {
      const settings = new InterfaceSettings(calls);
      let index: number;
      try {
        index = settings.index(name);
        if (!settings.isUp(name)) throw new ContractError("precondition", `interface ${name} of the host is down; bring it up: ip link set ${name} up`);
      } finally {
        settings.close();
      }
      const one = Buffer.alloc(4);
      one.writeInt32LE(1);
      if (calls.setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, one, 4) < 0) throw failure(calls, `ask for checksum offload on ${name}`);
      const promiscuous = Buffer.alloc(16); // struct packet_mreq
      promiscuous.writeInt32LE(index, 0);
      promiscuous.writeUInt16LE(PACKET_MR_PROMISC, 4);
      if (calls.setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, promiscuous, 16) < 0) throw failure(calls, `listen to everything on ${name}`);
      const address = Buffer.alloc(20); // struct sockaddr_ll
      address.writeUInt16LE(AF_PACKET, 0);
      address.writeUInt16LE(protocol, 2);
      address.writeInt32LE(index, 4);
      if (calls.bind(fd, address, 20) < 0) throw failure(calls, `bind to ${name}`);
      return this.#opened(calls, name, fd, receive, 10); // packet sockets have the header without num_buffers
    } catch (error) {
      calls.close(fd);
      throw error;
    }
  }

  #opened(calls: LinuxCalls, name: string, fd: number, receive: HostFrames, headerBytes = VIRTIO_NET_HEADER_BYTES): HostInterface {
    let buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    let closed = false;
    const drain = (): boolean => {
      const frames: Frame[] = [];
      while (frames.length < READS_PER_TURN) {
        const length = calls.read(fd, buffer, READ_BYTES);
        if (length <= headerBytes) break;
        const offload = readVirtioHeader(buffer);
        youngBuffer(length);
        if (length >= GIVEN_AWAY_BYTES) {
          frames.push({ data: new Uint8Array(buffer.buffer, headerBytes, length - headerBytes), offload });
          buffer = Buffer.allocUnsafeSlow(READ_BYTES);
        } else frames.push({ data: new Uint8Array(buffer.subarray(headerBytes, length)), offload });
      }
      if (frames.length > 0) receive(frames);
      return frames.length > 0 && !closed;
    };
    const poller = (this.#poller ??= new FdPoller(calls));
    poller.add(fd, drain);
    const out = Buffer.alloc(READ_BYTES);
    return {
      name,
      send({ data, offload }: Frame): boolean {
        if (closed || data.length + headerBytes > READ_BYTES) return false;
        writeVirtioHeader(out, offload);
        out.set(data, headerBytes);
        return calls.write(fd, out, headerBytes + data.length) > 0;
      },
      close(): void {
        if (closed) return;
        closed = true;
        poller.remove(fd);
      },
    };
  }
}
