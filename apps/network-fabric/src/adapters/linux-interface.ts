import { ContractError } from "@polyvisor/contracts";
import { subnetMask, type Ipv4Address, type MacAddress } from "@polyvisor/wire";
import { ERRNO, type LinuxCalls } from "./linux-calls.ts";

/** struct ifreq: char name[16], then a union of 24 bytes (netdevice(7)). */
const IFREQ_BYTES = 40;
const VALUE_AT = 16;
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SIOC = { GIFFLAGS: 0x8913, SIFFLAGS: 0x8914, SIFADDR: 0x8916, SIFNETMASK: 0x891c, SIFMTU: 0x8922, SIFHWADDR: 0x8924, GIFINDEX: 0x8933, BRADDIF: 0x89a2 } as const;
const IFF_UP = 1;
const ARPHRD_ETHER = 1; // linux/if_arp.h

export const PRIVILEGES = "needs the capability CAP_NET_ADMIN: run the stack as root, or use nat, natnetwork (without the host) or internal, which need none";

/** An ifreq for the named interface. */
export function ifreq(name: string): Buffer {
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name, 0, 15, "latin1");
  return request;
}
export function failure(calls: LinuxCalls, what: string): ContractError {
  const errno = calls.errno();
  if (errno === ERRNO.EPERM || errno === ERRNO.EACCES) return new ContractError("denied", `${what}: ${PRIVILEGES}`);
  const name = Object.entries(ERRNO).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
  const condition = errno === ERRNO.EBUSY || errno === ERRNO.EEXIST ? "conflict" : errno === ERRNO.ENODEV || errno === ERRNO.ENOENT ? "not-found" : "unavailable";
  return new ContractError(condition, `${what}: ${name}`);
}

/** Settings of interfaces, as ifconfig makes them: through a socket of its own. */
export class InterfaceSettings {
  readonly #calls: LinuxCalls;
  readonly #socket: number;

  constructor(calls: LinuxCalls) {
    this.#calls = calls;
    this.#socket = calls.socket(AF_INET, SOCK_DGRAM, 0);
    if (this.#socket < 0) throw failure(calls, "open a socket");
  }
  index(name: string): number {
    const request = ifreq(name);
    this.#do(SIOC.GIFINDEX, request, `look for interface ${name}`);
    return request.readInt32LE(VALUE_AT);
  }
  isUp(name: string): boolean {
    const request = ifreq(name);
    this.#do(SIOC.GIFFLAGS, request, `look at interface ${name}`);
    return (request.readInt16LE(VALUE_AT) & IFF_UP) !== 0;
  }
  setUp(name: string): void {
    const request = ifreq(name);
    this.#do(SIOC.GIFFLAGS, request, `look at interface ${name}`);
    request.writeInt16LE(request.readInt16LE(VALUE_AT) | IFF_UP, VALUE_AT);
    this.#do(SIOC.SIFFLAGS, request, `bring ${name} up`);
  }
  setMtu(name: string, mtu: number): void {
    const request = ifreq(name);
    request.writeInt32LE(mtu, VALUE_AT);
    this.#do(SIOC.SIFMTU, request, `set the MTU of ${name} to ${mtu}`);
  }
  setMac(name: string, mac: MacAddress): void {
    const request = ifreq(name);
    request.writeUInt16LE(ARPHRD_ETHER, VALUE_AT); // struct sockaddr
    request.writeUIntBE(mac, VALUE_AT + 2, 6);
    this.#do(SIOC.SIFHWADDR, request, `set the MAC address of ${name}`);
  }
  setAddress(name: string, address: Ipv4Address, prefix: number): void {
    for (const [call, value, what] of [[SIOC.SIFADDR, address, "address"], [SIOC.SIFNETMASK, subnetMask(prefix), "netmask"]] as const) {
      const request = ifreq(name);
      request.writeUInt16LE(AF_INET, VALUE_AT); // struct sockaddr_in
      request.writeUInt32BE(value, VALUE_AT + 4);
      this.#do(call, request, `set the ${what} of ${name}`);
    }
  }
  joinBridge(bridge: string, name: string): void {
    const request = ifreq(bridge);
    request.writeInt32LE(this.index(name), VALUE_AT);
    this.#do(SIOC.BRADDIF, request, `put ${name} into bridge ${bridge}`);
  }
  close(): void {
    this.#calls.close(this.#socket);
  }
  #do(call: number, request: Buffer, what: string): void {
    if (this.#calls.ioctl(this.#socket, call, request) < 0) throw failure(this.#calls, what);
  }
}
