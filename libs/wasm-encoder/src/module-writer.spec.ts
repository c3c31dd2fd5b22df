import { describe, expect, it } from "vitest";
import { Atomic, ByteWriter, F64, I32, I64, Mem, ModuleWriter, Op, Simd } from "./index.ts";

const hex = (bytes: Uint8Array) => [...bytes].map((b) => b.toString(16).padStart(2, "0")).join(" ");

describe("ByteWriter", () => {
  it("writes LEB128 as in the examples of the core specification (5.2.2)", () => {
    expect(hex(new ByteWriter().u32(624485).view())).toBe("e5 8e 26");
    expect(hex(new ByteWriter().s32(-123456).view())).toBe("c0 bb 78");
    expect(hex(new ByteWriter().s64(-1n).view())).toBe("7f");
    expect(hex(new ByteWriter().s64(0x8000_0000_0000_0000n).view())).toBe("80 80 80 80 80 80 80 80 80 7f");
    expect(hex(new ByteWriter().u32(0xffff_ffff).view())).toBe("ff ff ff ff 0f");
  });

  it("grows beyond its capacity", () => {
    const writer = new ByteWriter(1);
    for (let i = 0; i < 300; i++) writer.byte(i & 255);
    expect(writer.view()[299]).toBe(299 & 255);
  });
});

describe("ModuleWriter", () => {
  it("writes an addition as the known bytes", () => {
    const module = new ModuleWriter();
    const add = module.function("add", { parameters: [I32, I32], results: [I32] });
    add.code.get(0).get(1).op(Op.i32Add);
    module.exportFunction("add", add);
    expect(hex(module.finish())).toBe(
      "00 61 73 6d 01 00 00 00 01 07 01 60 02 7f 7f 01 7f 03 02 01 00 07 07 01 03 61 64 64 00 00 " +
        "0a 09 01 07 00 20 00 20 01 6a 0b 00 0d 04 6e 61 6d 65 01 06 01 00 03 61 64 64",
    );
  });

  it("refuses an unclosed block, a branch to a closed one and a late import", () => {
    const module = new ModuleWriter();
    const { code } = module.function("f", { parameters: [], results: [] });
    const label = code.block();
    expect(() => module.finish()).toThrow(/unclosed/);
    code.end();
    expect(() => code.br(label)).toThrow(/closed/);
    expect(() => code.end()).toThrow(/no open block/);
    expect(() => module.importFunction("e", "f", { parameters: [], results: [] })).toThrow(/before functions/);
  });

  it("makes runnable modules with shared memory, imports, loops, tables, atomics, hints and SIMD", async () => {
    const module = new ModuleWriter();
    module.importMemory("env", "memory", { min: 1, max: 4, shared: true });
    const seen = module.importFunction("env", "seen", { parameters: [I32], results: [] });
    const sum = module.function("sum", { parameters: [I32], results: [I64] });
    const total = sum.code.local(I64);
    const loop = sum.code.loop();
    sum.code.get(total).get(0).op(Op.i64ExtendI32U, Op.i64Add).set(total);
    sum.code.get(0).i32(1).op(Op.i32Sub).tee(0).brIf(loop, true).end();
    sum.code.i32(8).get(total).atomic(Atomic.i64Add).op(Op.drop).get(0).call(seen).get(total);
    const pick = module.function("pick", { parameters: [I32], results: [I32] });
    const outer = pick.code.block();
    const inner = pick.code.block();
    pick.code.get(0).brTable([inner, outer], outer).end().i32(10).op(Op.return).end().i32(20);
    const fma = module.function("fma", { parameters: [F64], results: [F64] });
    for (let i = 0; i < 3; i++) fma.code.get(0).simd(Simd.f64x2Splat);
    fma.code.simd(Simd.f64x2RelaxedMadd).f64x2ExtractLane(0);
    const indirect = module.function("indirect", { parameters: [I32], results: [I32] });
    module.table({ min: 1 });
    module.elements(0, [pick]);
    indirect.code.get(0).i32(0).callIndirect(module.type({ parameters: [I32], results: [I32] }));
    const load = module.function("load", { parameters: [], results: [I64] });
    load.code.i32(0).mem(Mem.i64Load, 8).fence();
    for (const [name, f] of Object.entries({ sum, pick, fma, indirect, load })) module.exportFunction(name, f);
    const bytes = module.finish();
    expect(WebAssembly.validate(bytes)).toBe(true);
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 4, shared: true });
    const calls: number[] = [];
    const { instance } = await WebAssembly.instantiate(bytes, { env: { memory, seen: (n: number) => calls.push(n) } });
    const call = (name: string, ...args: number[]): unknown => (instance.exports[name] as (...a: number[]) => unknown)(...args);
    expect(call("sum", 10)).toBe(55n);
    expect(call("load")).toBe(55n);
    expect(calls).toEqual([0]);
    expect([call("pick", 0), call("pick", 1), call("indirect", 0)]).toEqual([10, 20, 10]);
    expect(call("fma", 3)).toBe(12);
  });

  it("puts branch hints at the offset of the hinted instruction within the body", () => {
    const module = new ModuleWriter();
    const f = module.function("f", { parameters: [I32], results: [] });
    f.code.local(I64);
    f.code.get(0).if(undefined, false);
    f.code.end();
    const bytes = hex(module.finish());
    // body: 01 01 7e (locals) 20 00 (local.get) 04 <- offset 5
    expect(bytes).toContain(`${hex(new ByteWriter().name("metadata.code.branch_hint").view())} 01 00 01 05 01 00`);
  });
});
