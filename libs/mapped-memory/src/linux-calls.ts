import { createRequire } from "node:module";
import { ContractError } from "@polyvisor/contracts";

/** The system calls behind mapped memory, through koffi; they answer −1 (mmap: 2⁶⁴ − 1) and set errno as in C. */
export interface LinuxCalls {
  memfd_create(name: string, flags: number): number;
  fcntl(fd: number, command: number, argument: number): number;
  mmap(address: bigint, bytes: number, protection: number, flags: number, fd: number, offset: number): number | bigint;
  /** Where a view's bytes lie in this process. */
  addressOf(view: Uint8Array): bigint;
  errno(): number;
}

let loaded: LinuxCalls | undefined;

/** Loads koffi and libc at the first call. Throws "unimplemented" or "unavailable", saying what is missing. */
export function linuxCalls(): LinuxCalls {
  if (loaded) return loaded;
  if (process.platform !== "linux") throw new ContractError("unimplemented", `mapped memory needs Linux, this is ${process.platform}`);
  let koffi: typeof import("koffi");
  try {
    koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
  } catch (error) {
    throw new ContractError("unavailable", "mapped memory needs the package koffi, which has no build for this machine or was left out: npm install --include=optional", { cause: error });
  }
  const libc = koffi.load(null);
  loaded = {
    memfd_create: libc.func("int memfd_create(const char *name, unsigned int flags)"),
    fcntl: libc.func("int fcntl(int fd, int command, int argument)"),
    mmap: libc.func("uint64_t mmap(uint64_t address, size_t bytes, int protection, int flags, int fd, int64_t offset)"),
    addressOf: (view) => koffi.address(view),
    errno: () => koffi.errno(),
  };
  return loaded;
}
