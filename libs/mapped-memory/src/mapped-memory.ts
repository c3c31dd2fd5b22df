import { randomBytes } from "node:crypto";
import { closeSync, fstatSync, ftruncateSync, openSync, readlinkSync } from "node:fs";
import { ContractError } from "@polyvisor/contracts";
import { linuxCalls } from "./linux-calls.ts";

/** A shared WebAssembly.Memory of which a part lies in a file that other processes of this host can map, too. */
export interface MappedLayout {
  /** Bytes before the shared part, private to this process; a multiple of 65536. */
  readonly offset: number;
  /** Bytes of the shared part; offset and bytes are at most 4 GiB together. */
  readonly bytes: number;
}

export interface MappedMemory {
  readonly memory: WebAssembly.Memory;
  /** What another process opens it with: `<pid>:<fd>:<name>`. */
  readonly token: string;
  /** Nobody can open it any more; who has it mapped keeps it. */
  close(): void;
}

const WASM_PAGE_BYTES = 65536;
// memfd_create(2), fcntl(2) F_ADD_SEALS, mmap(2): the same numbers on every Linux that Node runs on.
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL_SHRINK_GROW = 1 | 2 | 4;
const PROT_READ_WRITE = 3;
const MAP_SHARED_FIXED = 0x11;

/** Why memory cannot be mapped here; undefined: it can. */
export function mappedMemoryAbsent(): string | undefined {
  try {
    linuxCalls();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/**
 * New memory, zero, its shared part in a memfd: a file without a name that is gone with the last process that has it.
 * Its size is sealed, so that nobody who opens it can make the others fault by cutting it.
 * Throws "unimplemented" or "unavailable" (not on this host), "exhausted" (no room).
 */
export function createMappedMemory(layout: MappedLayout): MappedMemory {
  const { memfd_create, fcntl, errno } = linuxCalls();
  const memory = reserve(layout);
  const name = `polyvisor-${randomBytes(16).toString("hex")}`;
  const fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) throw new ContractError("unavailable", `memfd_create: errno ${errno()}`);
  try {
    ftruncateSync(fd, layout.bytes);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL_SHRINK_GROW) < 0) throw new ContractError("unavailable", `fcntl F_ADD_SEALS: errno ${errno()}`);
    mapOver(memory, layout, fd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return { memory, token: `${process.pid}:${fd}:${name}`, close: () => closeSync(fd) };
}

/**
 * The memory behind a token of another process of this host, in front of it this process's own `layout.offset` bytes.
 * Throws "unavailable" when the token names nothing that this process can reach (another host or container, another
 * user, closed), "invalid" when it is no token or its size is not the layout's.
 */
export function openMappedMemory(token: string, layout: MappedLayout): WebAssembly.Memory {
  const [, pid, descriptor, name] = /^([1-9]\d{0,9}):(\d{1,9}):(polyvisor-[0-9a-f]{32})$/.exec(token) ?? [];
  if (name === undefined) throw new ContractError("invalid", "mapped memory: the token is not of the form pid:fd:name");
  linuxCalls();
  const path = `/proc/${pid}/fd/${descriptor}`;
  let fd: number;
  try {
    // The name is drawn at random: whatever another host's process has at this place, it is not called so.
    const target = readlinkSync(path);
    if (target !== `/memfd:${name} (deleted)`) throw new Error(`it is ${target}`);
    fd = openSync(path, "r+");
  } catch (error) {
    throw new ContractError("unavailable", `mapped memory: ${path} is not ${name}: ${(error as Error).message}`, { cause: error });
  }
  try {
    const { size } = fstatSync(fd);
    if (size !== layout.bytes) throw new ContractError("invalid", `mapped memory: it has ${size} bytes, not ${layout.bytes}`);
    const memory = reserve(layout);
    mapOver(memory, layout, fd);
    return memory;
  } finally {
    closeSync(fd);
  }
}

function reserve({ offset, bytes }: MappedLayout): WebAssembly.Memory {
  if (offset % WASM_PAGE_BYTES !== 0) throw new ContractError("invalid", `mapped memory: offset ${offset} is no multiple of ${WASM_PAGE_BYTES}`);
  const pages = Math.ceil((offset + bytes) / WASM_PAGE_BYTES);
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch (cause) {
    throw new ContractError("exhausted", `the host cannot reserve ${offset + bytes} bytes`, { cause });
  }
}

/** Puts the file in the place of the memory's own pages. V8 never moves a shared memory, and unmaps it as a whole. */
function mapOver(memory: WebAssembly.Memory, { offset, bytes }: MappedLayout, fd: number): void {
  const { mmap, addressOf, errno } = linuxCalls();
  const address = addressOf(new Uint8Array(memory.buffer)) + BigInt(offset);
  const mapped = BigInt(mmap(address, bytes, PROT_READ_WRITE, MAP_SHARED_FIXED, fd, 0));
  if (mapped !== address) throw new ContractError("exhausted", `mapped memory: mmap of ${bytes} bytes: errno ${errno()}`);
}
