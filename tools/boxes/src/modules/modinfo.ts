/**
 * What a Linux kernel module says about itself: the NUL-separated `key=value` strings of its ELF section `.modinfo`
 * (kernel include/linux/moduleparam.h). Modules here are ELF64 little-endian.
 */
export interface ModuleInfo {
  readonly name: string;
  readonly depends: readonly string[];
  readonly aliases: readonly string[];
  /** `softdep=pre: a b post: c`: names or aliases, wanted but not needed by a symbol. */
  readonly softBefore: readonly string[];
  readonly softAfter: readonly string[];
}

export function readModuleInfo(ko: Uint8Array, what: string): ModuleInfo {
  const strings = modinfoStrings(ko, what);
  const all = (key: string): string[] => strings.filter((s) => s.startsWith(`${key}=`)).map((s) => s.slice(key.length + 1));
  const name = all("name")[0];
  if (!name) throw new Error(`${what}: .modinfo has no name=`);
  const softBefore: string[] = [];
  const softAfter: string[] = [];
  for (const line of all("softdep")) {
    let into: string[] | undefined;
    for (const word of line.split(/\s+/)) {
      if (word === "pre:") into = softBefore;
      else if (word === "post:") into = softAfter;
      else if (word !== "") into?.push(word);
    }
  }
  const depends = (all("depends")[0] ?? "").split(",").filter((d) => d !== "");
  return { name, depends, aliases: all("alias"), softBefore, softAfter };
}

function modinfoStrings(ko: Uint8Array, what: string): string[] {
  const view = new DataView(ko.buffer, ko.byteOffset, ko.byteLength);
  const isElf64 = ko.length >= 64 && view.getUint32(0) === 0x7f454c46 && ko[4] === 2 && ko[5] === 1;
  if (!isElf64) throw new Error(`${what}: not a little-endian ELF64 file`);
  // ELF64 header: e_shoff at 0x28, e_shentsize 0x3a, e_shnum 0x3c, e_shstrndx 0x3e.
  const table = Number(view.getBigUint64(0x28, true));
  const entrySize = view.getUint16(0x3a, true);
  const count = view.getUint16(0x3c, true);
  const section = (index: number): { name: number; data: Uint8Array } => {
    const at = table + index * entrySize;
    if (at + 64 > ko.length) throw new Error(`${what}: section ${index} lies outside the file; it is truncated`);
    const offset = Number(view.getBigUint64(at + 0x18, true));
    const size = Number(view.getBigUint64(at + 0x20, true));
    return { name: view.getUint32(at, true), data: ko.subarray(offset, offset + size) };
  };
  const names = section(view.getUint16(0x3e, true)).data;
  const latin1 = new TextDecoder("latin1");
  for (let i = 0; i < count; i++) {
    const { name, data } = section(i);
    const end = names.indexOf(0, name);
    if (latin1.decode(names.subarray(name, end < 0 ? undefined : end)) === ".modinfo") {
      return latin1.decode(data).split("\0").filter((s) => s !== "");
    }
  }
  throw new Error(`${what}: has no .modinfo section; is it a kernel module?`);
}
