import fc from "fast-check";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ElfError, readElf } from "./elf.ts";
import { LinuxImageError, isLinuxImage, readLinuxImage } from "./linux-image.ts";
import { mapTable } from "./map-table.ts";

/** A minimal executable: one segment at 0x80000000, a symbol table with "tohost". */
function sampleElf(): Uint8Array {
  const file = new Uint8Array(64 + 56 + 16 + 16 + 48 + 3 * 64);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 243, true);
  view.setBigUint64(24, 0x8000_0000n, true);
  view.setBigUint64(32, 64n, true); // program headers
  view.setBigUint64(40, 200n, true); // section headers
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint16(58, 64, true);
  view.setUint16(60, 3, true);
  view.setUint32(64, 1, true);
  view.setUint32(68, 5, true);
  view.setBigUint64(72, 120n, true);
  view.setBigUint64(80, 0x8000_0000n, true);
  view.setBigUint64(88, 0x8000_0000n, true);
  view.setBigUint64(96, 16n, true);
  view.setBigUint64(104, 4096n, true);
  file.set(new TextEncoder().encode("\0tohost\0"), 136);
  view.setUint32(152 + 24, 1, true);
  view.setBigUint64(152 + 24 + 8, 0x8000_1000n, true);
  const symtab = 200 + 64;
  view.setUint32(symtab + 4, 2, true);
  view.setBigUint64(symtab + 24, 152n, true);
  view.setBigUint64(symtab + 32, 48n, true);
  view.setUint32(symtab + 40, 2, true);
  const strtab = 200 + 128;
  view.setUint32(strtab + 4, 3, true);
  view.setBigUint64(strtab + 24, 136n, true);
  view.setBigUint64(strtab + 32, 16n, true);
  return file.slice(0);
}

describe("ELF loader", () => {
  it("gives entry, loadable segments and symbols", () => {
    const elf = readElf(sampleElf());
    expect(elf.entry).toBe(0x8000_0000n);
    expect(elf.segments).toHaveLength(1);
    expect(elf.segments[0]).toMatchObject({ physicalAddress: 0x8000_0000n, memoryBytes: 4096n, executable: true });
    expect(elf.symbol("tohost")).toBe(0x8000_1000n);
    expect(elf.symbol("nothing")).toBeUndefined();
  });
  it("says what a file for another machine is", () => {
    const file = sampleElf();
    new DataView(file.buffer).setUint16(18, 62, true);
    expect(() => readElf(file)).toThrow("machine 62, expected RISC-V (243)");
  });
  it("answers ElfError or a file for any damage, and nothing else", () => {
    const good = sampleElf();
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 8 }),
        fc.nat(good.length),
        (edits, length) => {
          const file = good.slice(0, length);
          for (const [at, value] of edits) if (at < length) file[at] = value;
          try {
            readElf(file).symbol("tohost");
          } catch (error) {
            expect(error).toBeInstanceOf(ElfError);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("Linux Image header", () => {
  it("gives the load offset and size", () => {
    const file = new Uint8Array(64);
    const view = new DataView(file.buffer);
    view.setBigUint64(8, 0x20_0000n, true);
    view.setBigUint64(16, 31_895_552n, true);
    view.setUint16(32, 2, true);
    file.set([0x52, 0x53, 0x43, 5], 56);
    expect(isLinuxImage(file)).toBe(true);
    expect(readLinuxImage(file)).toEqual({
      textOffset: 0x20_0000n,
      imageBytes: 31_895_552n,
      littleEndian: true,
      version: { major: 0, minor: 2 },
    });
  });
  it("tells a compressed kernel to be decompressed", () => {
    const file = new Uint8Array(64);
    file.set([0x1f, 0x8b]);
    expect(() => readLinuxImage(file)).toThrow(LinuxImageError);
    expect(() => readLinuxImage(file)).toThrow("gunzip");
  });
});

describe("documentation", () => {
  it("holds the generated address map", () => {
    expect(readFileSync(new URL("../README.md", import.meta.url), "utf8")).toContain(mapTable());
  });
});
