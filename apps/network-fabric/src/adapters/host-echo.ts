import { emitIcmp, ICMP_TYPE, internetChecksum, parseIcmp, parseIpv4 } from "@polyvisor/wire";
import { HostError, type EchoOutcome, type HostEcho, type HostFailure } from "../core/nat/host-network.ts";
import { FdPoller } from "./fd-poller.ts";
import { ERRNO, linuxCalls, type LinuxCalls } from "./linux-calls.ts";

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const IPPROTO_IP = 0;
const IPPROTO_ICMP = 1;
const IP_TTL = 2;
const IP_RECVERR = 11;
const MSG_ERRQUEUE = 0x2000;
const SO_EE_ORIGIN_ICMP = 2;
const TIMEOUT_MS = 10_000;
const ANSWER_BYTES = 65_536;

/**
 * Echo requests through ICMP sockets: unprivileged ones (icmp(7)) where net.ipv4.ping_group_range has our group, raw ones where
 * we have CAP_NET_RAW. One socket a request, connected, so that the kernel tells us about errors on the way (IP_RECVERR, ip(7)).
 */
export class LinuxEcho implements HostEcho {
  #poller: FdPoller | undefined;
  /** Of raw sockets, which see the answers of every process; the kernel fills it in for the others. */
  #sequence = 0;

  async echo(address: string, data: Uint8Array, timeToLive: number): Promise<EchoOutcome | undefined> {
    const calls = theCalls();
    const to = parseIpv4(address);
    if (to === undefined) throw new HostError("network-unreachable", `${address} is no IPv4 address`);
    const { fd, raw } = this.#open(calls);
    const identifier = process.pid & 0xffff;
    const sequence = (this.#sequence = (this.#sequence + 1) & 0xffff);
    const peer = Buffer.alloc(16); // struct sockaddr_in (ip(7))
    peer.writeUInt16LE(AF_INET, 0);
    peer.writeUInt32BE(to, 4);
    const request = emitIcmp({ type: ICMP_TYPE.ECHO_REQUEST, code: 0, rest: identifier * 0x1_0000 + sequence, payload: data });
    const failed = calls.connect(fd, peer, peer.length) < 0 || !this.#set(calls, fd, IP_RECVERR, 1) || !this.#set(calls, fd, IP_TTL, timeToLive) || calls.write(fd, request, request.length) < 0;
    if (failed) {
      const error = failureOf(calls.errno());
      calls.close(fd);
      throw error;
    }
    return new Promise((resolve) => {
      const poller = (this.#poller ??= new FdPoller(calls));
      const buffer = Buffer.alloc(ANSWER_BYTES);
      const end = (outcome: EchoOutcome | undefined): void => {
        clearTimeout(timer);
        poller.remove(fd);
        resolve(outcome);
      };
      const timer = setTimeout(() => end(undefined), TIMEOUT_MS);
      timer.unref();
      poller.add(fd, () => {
        const length = calls.read(fd, buffer, buffer.length);
        if (length < 0) {
          const error = readError(calls, fd);
          if (error) end(error);
          return false;
        }
        const answer = answerIn(buffer.subarray(0, length), raw);
        if (!answer || answer.sequence !== sequence || (raw && answer.identifier !== identifier)) return true;
        end({ data: answer.data });
        return false;
      });
    });
  }
  #open(calls: LinuxCalls): { fd: number; raw: boolean } {
    for (const type of [SOCK_DGRAM, SOCK_RAW]) {
      const fd = calls.socket(AF_INET, type | SOCK_NONBLOCK, IPPROTO_ICMP);
      if (fd >= 0) return { fd, raw: type === SOCK_RAW };
    }
    throw new HostError("denied", "ICMP sockets need a group in net.ipv4.ping_group_range, or CAP_NET_RAW");
  }
  #set(calls: LinuxCalls, fd: number, option: number, value: number): boolean {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(value);
    return calls.setsockopt(fd, IPPROTO_IP, option, bytes, bytes.length) === 0;
  }
}

function theCalls(): LinuxCalls {
  try {
    return linuxCalls();
  } catch (cause) {
    throw new HostError("denied", (cause as Error).message, { cause });
  }
}

/** An echo reply; raw sockets hand out the IP header, too. */
function answerIn(bytes: Buffer, raw: boolean): { identifier: number; sequence: number; data: Uint8Array } | undefined {
  const icmp = raw ? bytes.subarray((bytes[0]! & 15) * 4) : bytes;
  const message = internetChecksum(icmp) === 0 ? parseIcmp(icmp) : undefined;
  if (message?.type !== ICMP_TYPE.ECHO_REPLY) return undefined;
  return { identifier: message.rest >>> 16, sequence: message.rest & 0xffff, data: new Uint8Array(message.payload) };
}

/** The ICMP error in the socket's error queue: struct sock_extended_err and the address of its sender (ip(7)). */
function readError(calls: LinuxCalls, fd: number): EchoOutcome | undefined {
  const control = Buffer.alloc(512);
  const data = Buffer.alloc(ANSWER_BYTES);
  const vector = Buffer.alloc(16); // struct iovec
  vector.writeBigUInt64LE(calls.addressOf(data), 0);
  vector.writeBigUInt64LE(BigInt(data.length), 8);
  const message = Buffer.alloc(56); // struct msghdr of 64-bit Linux
  message.writeBigUInt64LE(calls.addressOf(vector), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(calls.addressOf(control), 32);
  message.writeBigUInt64LE(BigInt(control.length), 40);
  if (calls.recvmsg(fd, message, MSG_ERRQUEUE) < 0) return undefined;
  for (let at = 0; at + 48 <= control.length; ) {
    const length = Number(control.readBigUInt64LE(at)); // struct cmsghdr
    if (length < 16) return undefined;
    if (control.readInt32LE(at + 8) === IPPROTO_IP && control.readInt32LE(at + 12) === IP_RECVERR && control[at + 20] === SO_EE_ORIGIN_ICMP) {
      return { type: control[at + 21]!, code: control[at + 22]!, from: [...control.subarray(at + 36, at + 40)].join(".") };
    }
    at += (length + 7) & ~7;
  }
  return undefined;
}

function failureOf(errno: number): HostError {
  const failures: Readonly<Record<number, HostFailure>> = { [ERRNO.EACCES]: "denied", [ERRNO.EPERM]: "denied", [ERRNO.ENETUNREACH]: "network-unreachable", [ERRNO.EHOSTUNREACH]: "host-unreachable" };
  return new HostError(failures[errno] ?? "other", `echo request: errno ${errno}`);
}
