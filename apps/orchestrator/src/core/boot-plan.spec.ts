import { MachineSpec } from "@polyvisor/contracts/orchestrator";
import { describe, expect, it } from "vitest";
import { type BootInput, planBoot } from "./boot-plan.ts";

const MIB = 1n << 20n;
const kernel = { digest: "sha256:k", bytes: 31n * MIB, format: { kind: "linux-image" as const, memoryBytes: 32n * MIB } };
const input = (spec: Partial<MachineSpec>, rest: Partial<BootInput> = {}): BootInput => ({
  spec: MachineSpec.fromPartial({ name: "web", harts: 1, memoryBytes: 128n * MIB, ...spec }),
  boxConfig: undefined,
  kernel,
  initrd: { digest: "sha256:i", bytes: 3n * MIB + 5n },
  firmware: undefined,
  disk: undefined,
  nics: [],
  ...rest,
});

describe("planBoot", () => {
  it("a Linux Image with built-in firmware: kernel 2 MiB above RAM's base, initrd at the next 2 MiB behind its bss, tree near the top", () => {
    const plan = planBoot(input({}));
    expect(plan).toMatchObject({ firmware: 1, entry: 0x8020_0000n, initrd: { start: 0x8220_0000n, end: 0x8250_0005n }, deviceTree: 0x87e0_0000n });
  });

  it("the device tree stays below 1 GiB in larger machines", () => {
    expect(planBoot(input({ memoryBytes: 2048n * MIB })).deviceTree).toBe(0x8000_0000n + 1022n * MIB);
  });

  it("a firmware file at RAM's base starts there, and the initrd keeps clear of where OpenSBI moves the tree", () => {
    const plan = planBoot(input({}, { firmware: { digest: "sha256:f", bytes: 200_000n } }));
    expect(plan).toMatchObject({ firmware: 2, entry: 0x8000_0000n });
    expect(plan.initrd.start).toBe(0x8240_0000n);
    expect(plan.placements.map(({ what, address }) => [what, address])).toEqual([["firmware", 0x8000_0000n], ["kernel", 0x8020_0000n], ["initrd", 0x8240_0000n]]);
  });

  it("an ELF file: segments where they are linked, entry and tohost from the file, no virtio devices", () => {
    const segments = [{ address: 0x8000_0000n, fileOffset: 0x1000n, fileBytes: 64n, memoryBytes: 128n }];
    const plan = planBoot(input({}, { initrd: undefined, kernel: { ...kernel, format: { kind: "elf", entry: 0x8000_0004n, segments, tohost: 0x8000_0040n } } }));
    expect(plan).toMatchObject({ firmware: 2, entry: 0x8000_0004n, tohost: 0x8000_0040n, devices: [], bootArguments: "" });
    expect(plan.placements).toMatchObject([{ blobOffset: 0x1000n, length: 64n }]);
  });

  it("an ELF file linked with -Ttext: the headers in the page below RAM are left out", () => {
    const segments = [{ address: 0x7fff_f000n, fileOffset: 0n, fileBytes: 0x10a0n, memoryBytes: 0x10b0n }];
    const plan = planBoot(input({}, { initrd: undefined, kernel: { ...kernel, format: { kind: "elf", entry: 0x8000_0000n, segments, tohost: undefined } } }));
    expect(plan.placements).toMatchObject([{ address: 0x8000_0000n, blobOffset: 0x1000n, length: 0xa0n }]);
  });

  it("a raw image starts at RAM's base in M-mode, even in 1 MiB", () => {
    const plan = planBoot(input({ memoryBytes: MIB }, { initrd: undefined, kernel: { digest: "sha256:r", bytes: 100n, format: { kind: "raw" } } }));
    expect(plan).toMatchObject({ firmware: 2, entry: 0x8000_0000n, deviceTree: 0x800f_0000n });
  });

  for (const [what, plan, message] of [
    ["a kernel larger than RAM", input({ memoryBytes: 16n * MIB }), /kernel needs .* give the machine more memory/],
    ["no room for the device tree", input({ memoryBytes: 37n * MIB + 8192n }), /no room for the device tree/],
    [
      "an ELF linked below RAM",
      input({}, { initrd: undefined, kernel: { ...kernel, format: { kind: "elf", entry: 0n, segments: [{ address: 0n, fileOffset: 0n, fileBytes: 1n, memoryBytes: 1n }], tohost: undefined } } }),
      /link it for 0x80000000/,
    ],
    [
      "ELF segments that overlap",
      input({}, { initrd: undefined, kernel: { ...kernel, format: { kind: "elf", entry: 0n, tohost: undefined, segments: [0x8000_0000n, 0x8000_0010n].map((address) => ({ address, fileOffset: 0n, fileBytes: 1n, memoryBytes: 0x20n })) } } }),
      /overlaps ELF segment 0/,
    ],
  ] as const) {
    it(`refuses ${what}`, () => expect(() => planBoot(plan)).toThrow(message));
  }
});
