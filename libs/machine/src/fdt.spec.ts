import { execFileSync, spawnSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { cells, FdtError, findNode, flag, node, readCells, readFdt, readText, text, writeFdt, type FdtTree } from "./fdt.ts";
import { deviceTree, isaExtensions } from "./device-tree.ts";

const sample: FdtTree = {
  bootCpu: 0,
  reservations: [{ address: 0x8000_0000n, bytes: 0x1000n }],
  root: node("", { compatible: text("a", "bc"), wide: cells(1, 0x1_0000_0002n) }, [
    node("soc", { ranges: flag() }, [node("serial@10000000", { reg: cells(0x1000_0000) })]),
  ]),
};

const board = {
  harts: 2,
  ramBase: 0x8000_0000n,
  ramBytes: 256n << 20n,
  isa: "rv64imafdc_zicntr_zicsr_zifencei_sstc",
  mmu: "riscv,sv48",
  bootArguments: "console=ttyS0",
  initrd: { start: 0x8420_0000n, end: 0x8430_0000n },
  virtioSlots: [0, 1, 2],
};

describe("flattened device tree (Devicetree Specification v0.4, chapter 5)", () => {
  it("reads back exactly what was written", () => {
    expect(readFdt(writeFdt(sample))).toEqual(sample);
  });

  it("begins with the magic and gives its own total size", () => {
    const blob = writeFdt(sample);
    const view = new DataView(blob.buffer);
    expect(view.getUint32(0)).toBe(0xd00dfeed);
    expect(view.getUint32(4)).toBe(blob.length);
  });

  it("refuses a truncated blob with FdtError", () => {
    const blob = writeFdt(sample);
    for (let length = 0; length < blob.length; length++) expect(() => readFdt(blob.slice(0, length))).toThrow(FdtError);
  });

  it("answers FdtError or a tree for any damage, and nothing else", () => {
    const good = writeFdt(deviceTree(board));
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }), (edits) => {
        const blob = good.slice();
        for (const [at, value] of edits) blob[at] = value;
        try {
          readFdt(blob);
        } catch (error) {
          expect(error).toBeInstanceOf(FdtError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("device tree of the board", () => {
  const tree = readFdt(writeFdt(deviceTree(board)));
  it("gives each hart its M and S external contexts at the PLIC", () => {
    const plic = findNode(tree, "/soc/plic@c000000")!;
    const intc = [0, 1].map(
      (hart) => readCells(findNode(tree, `/cpus/cpu@${hart}/interrupt-controller`)!.properties.get("phandle")!)[0],
    );
    expect(readCells(plic.properties.get("interrupts-extended")!)).toEqual([intc[0], 11, intc[0], 9, intc[1], 11, intc[1], 9]);
  });
  it("has a node for populated virtio slots only", () => {
    const names = findNode(tree, "/soc")!.children.map((child) => child.name).filter((name) => name.startsWith("virtio"));
    expect(names).toEqual(["virtio_mmio@10001000", "virtio_mmio@10002000", "virtio_mmio@10003000"]);
  });
  it("lists the ISA's extensions one by one", () => {
    expect(isaExtensions(board.isa)).toEqual(["i", "m", "a", "f", "d", "c", "zicntr", "zicsr", "zifencei", "sstc"]);
    expect(readText(findNode(tree, "/cpus/cpu@0")!.properties.get("riscv,isa-base")!)).toEqual(["rv64i"]);
  });

  it("gives the block sizes of the cache-block operations that the ISA has", () => {
    const sizes = (isa: string): string[] =>
      [...findNode(deviceTree({ ...board, isa }), "/cpus/cpu@0")!.properties.keys()].filter((name) => name.endsWith("block-size"));
    expect(sizes(board.isa)).toEqual([]);
    expect(sizes("rv64imac_zicbom_zicboz")).toEqual(["riscv,cbom-block-size", "riscv,cboz-block-size"]);
  });

  const dtc = spawnSync("dtc", ["--version"]);
  it.skipIf(dtc.error)(`is what dtc reads and writes again${dtc.error ? " (skipped: dtc is not installed)" : ""}`, () => {
    const blob = writeFdt(deviceTree(board));
    const source = execFileSync("dtc", ["-I", "dtb", "-O", "dts", "-"], { input: blob, stdio: ["pipe", "pipe", "pipe"] });
    const again = execFileSync("dtc", ["-I", "dts", "-O", "dtb", "-"], { input: source, stdio: ["pipe", "pipe", "pipe"] });
    expect(readFdt(new Uint8Array(again))).toEqual(readFdt(blob));
  });
});
