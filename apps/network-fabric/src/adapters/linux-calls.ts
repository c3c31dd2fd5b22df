import { createRequire } from "node:module";
import { ContractError } from "@polyvisor/contracts";

/** The few system calls that Node has no API for (libc, through koffi). Calls answer −1 and set errno as in C. */
export interface LinuxCalls {
  open(path: string, flags: number): number;
  close(fd: number): number;
  read(fd: number, buffer: Uint8Array, bytes: number): number;
  write(fd: number, buffer: Uint8Array, bytes: number): number;
  ioctl(fd: number, request: number, argument: Uint8Array): number;
  /** Of requests whose argument is a number and no address. */
  ioctlValue(fd: number, request: number, value: number): number;
  socket(domain: number, type: number, protocol: number): number;
  connect(fd: number, address: Uint8Array, bytes: number): number;
  /** `message`: a struct msghdr (recv(2)). */
  recvmsg(fd: number, message: Uint8Array, flags: number): number;
  /** Where a buffer's bytes lie, for structures that point to it. */
  addressOf(buffer: Uint8Array): bigint;
  bind(fd: number, address: Uint8Array, bytes: number): number;
  setsockopt(fd: number, level: number, option: number, value: Uint8Array, bytes: number): number;
  eventfd(initial: number, flags: number): number;
  /** On a thread of libuv's pool. */
  poll(descriptors: Uint8Array, count: number, timeoutMs: number): Promise<number>;
  errno(): number;
}

let loaded: LinuxCalls | undefined;

/** Loads koffi and libc at the first call. Throws ContractError that says what is missing. */
export function linuxCalls(): LinuxCalls {
  if (loaded) return loaded;
  if (process.platform !== "linux") {
    throw new ContractError("unimplemented", `TAP and raw interfaces need Linux, this is ${process.platform}; use nat, natnetwork (without the host) or internal`);
  }
  let koffi: typeof import("koffi");
  try {
    koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
  } catch (error) {
    throw new ContractError("unavailable", "TAP and raw interfaces need the package koffi, which has no build for this machine or was left out: npm install --include=optional", { cause: error });
  }
  const libc = koffi.load(null);
  const poll = libc.func("int poll(void *fds, unsigned long nfds, int timeout)");
  loaded = {
    open: libc.func("int open(const char *path, int flags)"),
    close: libc.func("int close(int fd)"),
    read: libc.func("long read(int fd, void *buf, size_t count)"),
    write: libc.func("long write(int fd, void *buf, size_t count)"),
    ioctl: libc.func("int ioctl(int fd, unsigned long request, void *arg)"),
    ioctlValue: libc.func("int ioctl(int fd, unsigned long request, unsigned long value)"),
    socket: libc.func("int socket(int domain, int type, int protocol)"),
    connect: libc.func("int connect(int fd, void *address, unsigned int bytes)"),
    recvmsg: libc.func("long recvmsg(int fd, void *message, int flags)"),
    addressOf: (buffer) => koffi.address(buffer),
    bind: libc.func("int bind(int fd, void *address, unsigned int bytes)"),
    setsockopt: libc.func("int setsockopt(int fd, int level, int option, void *value, unsigned int bytes)"),
    eventfd: libc.func("int eventfd(unsigned int initial, int flags)"),
    poll: (descriptors, count, timeoutMs) =>
      new Promise((resolve, reject) => {
        poll.async(descriptors, count, timeoutMs, (error: unknown, result: number) => (error ? reject(error as Error) : resolve(result)));
      }),
    errno: () => koffi.errno(),
  };
  return loaded;
}

/** errno(3) of x86, arm and riscv Linux alike. */
export const ERRNO = { EPERM: 1, ENOENT: 2, EAGAIN: 11, EACCES: 13, EBUSY: 16, EEXIST: 17, ENODEV: 19, EINVAL: 22, ENOBUFS: 105, ENETUNREACH: 101, EHOSTUNREACH: 113 } as const;
export const O_NONBLOCK_RDWR = 0o4002; // open(2)
