import { describe, expect, it } from "vitest";
import { isLinuxImage, linuxImageFileBytes, readLinuxImage, unbootableKind } from "./linux-image.ts";

/** An Image header with an EFI section table of two sections, as Linux arch/riscv/kernel/{head,efi-header}.S lay it out. */
function image({ pe = 64, sections = [[0x1000, 0x2000], [0x3000, 0x500]] as readonly (readonly [number, number])[] } = {}): Uint8Array {
  const bytes = new Uint8Array(1024);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(8, 0x20_0000n, true);
  view.setBigUint64(16, 0x10_0000n, true);
  view.setUint32(56, 0x0543_5352, true);
  view.setUint32(60, pe, true);
  if (pe + 4 > bytes.length) return bytes;
  view.setUint32(pe, 0x4550, true);
  view.setUint16(pe + 6, sections.length, true);
  view.setUint16(pe + 20, 16, true);
  for (const [index, [offset, size]] of sections.entries()) {
    view.setUint32(pe + 24 + 16 + index * 40 + 16, size, true);
    view.setUint32(pe + 24 + 16 + index * 40 + 20, offset, true);
  }
  return bytes;
}

describe("a RISC-V Linux Image", () => {
  it("is told by its magic; image_size and text_offset come from its header", () => {
    expect(isLinuxImage(image())).toBe(true);
    expect(readLinuxImage(image())).toMatchObject({ imageBytes: 0x10_0000n, textOffset: 0x20_0000n });
    expect(isLinuxImage(image().subarray(0, 63))).toBe(false);
  });

  it("needs at least the bytes up to the end of its last EFI section", () => {
    expect(linuxImageFileBytes(image())).toBe(0x3500);
  });

  it.each([
    ["without EFI", image({ pe: 0 })],
    ["whose PE header lies outside of what was read", image({ pe: 0xffff_fff0 })],
    ["whose section table lies outside of what was read", image({ sections: Array.from({ length: 20 }, () => [0, 0] as const) }).subarray(0, 512)],
    ["cut in its header", image().subarray(0, 60)],
  ])("%s says nothing about its file size", (_, bytes) => {
    expect(linuxImageFileBytes(bytes)).toBeUndefined();
  });
});

describe("a file that cannot run as it is", () => {
  it.each([
    [[0x1f, 0x8b, 8], "gunzip"],
    [[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], "unxz"],
    [[0x28, 0xb5, 0x2f, 0xfd], "unzstd"],
    [[0x4d, 0x5a, 0, 0], "another machine"],
    [[0xd0, 0x0d, 0xfe, 0xed], "device tree"],
  ])("%j is named, with what to do", (bytes, hint) => {
    expect(unbootableKind(Uint8Array.from(bytes))).toContain(hint);
  });
  it("anything else may be code", () => {
    expect(unbootableKind(Uint8Array.of(0x6f, 0, 0, 0))).toBeUndefined();
    expect(unbootableKind(new Uint8Array(0))).toBeUndefined();
  });
});
