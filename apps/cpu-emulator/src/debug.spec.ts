import fc from "fast-check";
import { assemble, CSR_BY_NAME } from "@polyvisor/isa";
import { afterEach, describe, expect, it } from "vitest";
import { bareMachine, RAM_BASE, type BareMachine, type BareProgram } from "./testing/bare-program.ts";
import { GdbClient } from "./testing/gdb-client.ts";

const PC = 32;
const T0 = 5;
const csr = (name: string): number => 65 + CSR_BY_NAME.get(name)!.number;
const hex = (value: bigint): string => value.toString(16);

/** Counts in t0, stores it to `cell`, loads it back; every hart on a cell of its own. */
const LOOP = assemble(
  `
  slli t2, a0, 3
  la t1, cell
  add t1, t1, t2
loop:
  addi t0, t0, 1
  sd t0, 0(t1)
  ld t3, 0(t1)
here:
  addi t4, t4, 1
  j loop
  .balign 8
cell: .dword 0, 0, 0, 0`,
  { base: RAM_BASE },
);
const at = (label: string): bigint => LOOP.labels.get(label)!;

let machine: BareMachine | undefined;
afterEach(async () => {
  await machine?.close();
  machine = undefined;
});
async function attach(options: Partial<BareProgram> = {}): Promise<{ gdb: GdbClient; machine: BareMachine; status(hart?: number): Promise<string>; counted(): Promise<bigint> }> {
  machine = await bareMachine({ program: LOOP.bytes, ...options });
  const { cpu, id } = machine;
  await cpu.runHarts({ machine: id });
  const state = async (hart = 0) => (await cpu.readHart({ machine: id, hart })).state!;
  return { gdb: new GdbClient(cpu, id), machine, status: async (hart) => (await state(hart)).status, counted: async () => (await state()).instructions };
}

for (const [engine, lease] of [["interpreter", "shared"], ["interpreter", "coherent"], ["reference", "shared"], ["dynamic", "shared"]] as const) {
  describe(`GDB on the ${engine} engine, ${lease} lease`, () => {
    const options = { engine, lease };

    it("attaching stops all harts, detaching lets them go on", async () => {
      const { gdb, status, counted } = await attach({ ...options, harts: 2 });
      expect(await gdb.ask("?")).toBe("T05thread:1;");
      expect([await status(0), await status(1)]).toEqual(["paused", "paused"]);
      expect(await gdb.ask("qfThreadInfo")).toBe("m1,2");
      expect(await gdb.ask("D")).toBe("OK");
      gdb.close();
      await expect.poll(() => status(1)).toBe("running");
      const before = await counted();
      await expect.poll(counted).toBeGreaterThan(before);
    });

    it("a software breakpoint stops before its instruction, again each time round, and memory shows the instruction", async () => {
      const { gdb } = await attach(options);
      await gdb.ask("?");
      const original = await gdb.ask(`m${hex(at("here"))},4`);
      expect(await gdb.ask(`Z0,${hex(at("here"))},4`)).toBe("OK");
      expect(await gdb.ask(`m${hex(at("here"))},4`)).toBe(original);
      expect(await gdb.ask("vCont;c")).toBe("T05thread:1;swbreak:;");
      expect(await gdb.register(PC)).toBe(at("here"));
      const first = await gdb.register(T0);
      // As GDB passes a breakpoint: without it, one step, with it again.
      await gdb.ask(`z0,${hex(at("here"))},4`);
      expect(await gdb.ask("vCont;s:1")).toBe("T05thread:1;");
      expect(await gdb.register(PC)).toBe(at("here") + 4n);
      await gdb.ask(`Z0,${hex(at("here"))},4`);
      expect(await gdb.ask("vCont;c")).toBe("T05thread:1;swbreak:;");
      expect(await gdb.register(T0)).toBe(first + 1n);
    });

    it("a hardware breakpoint stops without changing memory", async () => {
      const { gdb, machine } = await attach(options);
      await gdb.ask("?");
      expect(await gdb.ask(`Z1,${hex(at("here"))},4`)).toBe("OK");
      expect(await gdb.ask("vCont;c")).toBe("T05thread:1;hwbreak:;");
      expect(await gdb.register(PC)).toBe(at("here"));
      const { data } = await machine.memory.readMemory({ machine: machine.id, address: at("here"), length: 4 });
      expect(data).toEqual(LOOP.bytes.slice(Number(at("here") - RAM_BASE), Number(at("here") - RAM_BASE) + 4));
      await gdb.ask(`z1,${hex(at("here"))},4`);
      expect(await gdb.ask("vCont;s:1")).toBe("T05thread:1;");
    });

    it("a write watchpoint stops after the store, a read watchpoint after the load, others' data do not", async () => {
      const { gdb } = await attach(options);
      await gdb.ask("?");
      await gdb.ask(`Z2,${hex(at("cell") + 8n)},8`); // nobody writes there
      await gdb.ask(`Z2,${hex(at("cell") + 4n)},4`);
      expect(await gdb.ask("vCont;c")).toBe(`T05thread:1;watch:${hex(at("cell") + 4n)};`);
      expect(await gdb.register(PC)).toBe(at("loop") + 8n);
      await gdb.ask(`z2,${hex(at("cell") + 4n)},4`);
      await gdb.ask(`Z3,${hex(at("cell"))},8`);
      expect(await gdb.ask("vCont;c")).toBe(`T05thread:1;rwatch:${hex(at("cell"))};`);
      expect(await gdb.register(PC)).toBe(at("here"));
      const cell = Buffer.from(await gdb.ask(`m${hex(at("cell"))},8`), "hex").readBigUInt64LE();
      expect(cell).toBe(await gdb.register(T0));
    });

    it("Ctrl-C stops a running machine; a breakpoint of one hart stops all", async () => {
      const { gdb, status } = await attach({ ...options, harts: 2 });
      await gdb.ask("?");
      gdb.send("vCont;c");
      await expect.poll(() => status()).toBe("running");
      expect(await gdb.ask("\x03")).toBe("T02thread:1;");
      // Hart 1 alone comes past the jump's target that it is sent to.
      await gdb.ask("Hg2");
      await gdb.ask(`P20=${Buffer.from(new BigUint64Array([RAM_BASE]).buffer).toString("hex")}`);
      await gdb.ask(`Z0,${hex(RAM_BASE + 4n)},4`);
      expect(await gdb.ask("vCont;c")).toBe("T05thread:2;swbreak:;");
      expect([await status(0), await status(1)]).toEqual(["paused", "paused"]);
    });

    it("registers of all kinds are read and written; x0 and read-only CSRs stay", async () => {
      const { gdb } = await attach(options);
      await gdb.ask("?");
      expect((await gdb.ask("g")).length).toBe(33 * 16);
      expect(await gdb.ask(`P${csr("mscratch").toString(16)}=efcdab8967452301`)).toBe("OK");
      expect(await gdb.register(csr("mscratch"))).toBe(0x0123_4567_89ab_cdefn);
      expect(await gdb.ask("P25=000000000000f03f")).toBe("OK"); // f4
      expect(await gdb.register(0x25)).toBe(0x3ff0_0000_0000_0000n);
      expect(await gdb.ask("P0=0100000000000000")).toBe("OK");
      expect(await gdb.register(0)).toBe(0n);
      expect(await gdb.ask(`P${csr("mhartid").toString(16)}=0100000000000000`)).toBe("E16");
      expect(await gdb.register(65 + 4096)).toBe(3n); // priv
    });
  });
}

describe("the debugger's view of the machine", () => {
  it("memory is read through the hart's page tables, physically on demand, and `monitor walk` shows each step", async () => {
    // Sv39: 1 GiB at 0 → RAM at 0x8000_0000, in one leaf; RAM itself identically, for the code.
    const program = assemble(
      `
      la t0, table
      srli t0, t0, 12
      li t1, ${8n << 60n}
      or t0, t0, t1
      csrw satp, t0
      li t0, -1
      csrw pmpaddr0, t0
      li t0, 0x1f
      csrw pmpcfg0, t0
      li t0, 0x1800
      csrc mstatus, t0
      li t0, 0x800
      csrs mstatus, t0
      la t0, stay
      csrw mepc, t0
      mret
    stay: j stay
      .balign 4096
    table: .dword ${(0x8_0000n << 10n) | 0xcfn}, 0, ${(0x8_0000n << 10n) | 0xcfn}`,
      { base: RAM_BASE },
    );
    const { gdb, machine: { cpu, id } } = await attach({ program: program.bytes });
    await expect.poll(async () => (await cpu.readHart({ machine: id, hart: 0 })).state!.privilege).toBe(1);
    await gdb.ask("?");
    const code = Buffer.from(program.bytes.slice(0, 8)).toString("hex");
    expect(await gdb.ask("m0,8")).toBe(code);
    expect(await gdb.ask(`m${hex(RAM_BASE)},8`)).toBe(code);
    expect(await gdb.ask("m4000000000,8")).toBe("E0e");
    expect(await gdb.ask("qqemu.PhyMemMode")).toBe("0");
    expect(await gdb.ask("Qqemu.PhyMemMode:1")).toBe("OK");
    expect(await gdb.ask("m0,8")).toBe("E0e");
    expect(await gdb.ask(`m${hex(RAM_BASE)},8`)).toBe(code);
    expect(await gdb.monitor("phys off")).toContain("off");
    expect(await gdb.ask("M100,4:01020304")).toBe("OK");
    expect(await gdb.ask(`m${hex(RAM_BASE + 0x100n)},4`)).toBe("01020304");
    expect(await gdb.monitor("walk 0x1234")).toMatch(/Sv39, root table 0x80001000\n  level 2  entry 0x80001000 = 0x200000cf  VRWXAD, 1 GiB page at 0x80000000\n  physical 0x80001234/);
    expect(await gdb.monitor("walk 0x40000000")).toContain("not valid");
    expect(await gdb.monitor("walk 0x8000000000")).toContain("not canonical");
    expect(await gdb.monitor("help")).toContain("monitor walk");
    expect(await gdb.monitor("nonsense")).toContain("monitor harts");
  });

  it("the target description is one document, in pieces as asked for", async () => {
    const { gdb } = await attach();
    expect(await gdb.ask("qSupported:swbreak+;xmlRegisters=i386")).toContain("qXfer:features:read+");
    let text = "";
    for (;;) {
      const part = await gdb.ask(`qXfer:features:read:target.xml:${text.length.toString(16)},3fb`);
      text += part.slice(1);
      if (part[0] === "l") break;
    }
    for (const name of ["satp", "mstatus", "ft0", "priv"]) expect(text).toContain(`<reg name="${name}"`);
    expect(text).toMatch(/^<\?xml.*<\/target>$/);
  });

  it("a second debugger → conflict; one that vanishes leaves no breakpoint and a running guest", async () => {
    const { gdb, machine, counted } = await attach();
    await gdb.ask("?");
    const second = new GdbClient(machine.cpu, machine.id);
    second.send("?");
    await expect.poll(() => second.closedBy).toBe("conflict");
    await gdb.ask(`Z0,${hex(at("here"))},4`);
    gdb.close();
    await expect.poll(async () => (await machine.cpu.readHart({ machine: machine.id, hart: 0 })).state!.status).toBe("running");
    const before = await counted();
    await expect.poll(counted).toBeGreaterThan(before + 1000n);
    const { data } = await machine.memory.readMemory({ machine: machine.id, address: RAM_BASE, length: LOOP.bytes.length });
    expect(data.slice(0, Number(at("cell") - RAM_BASE))).toEqual(LOOP.bytes.slice(0, Number(at("cell") - RAM_BASE)));
    await expect.poll(async () => {
      const third = new GdbClient(machine.cpu, machine.id);
      return third.ask("?").finally(() => third.close());
    }).toBe("T05thread:1;");
  });

  it("destroying the machine tells a waiting debugger that the program exited", async () => {
    const { gdb, machine } = await attach();
    await gdb.ask("?");
    gdb.send("vCont;c");
    await expect.poll(async () => (await machine.cpu.readHart({ machine: machine.id, hart: 0 })).state!.status).toBe("running");
    await machine.cpu.destroyHarts({ machine: machine.id });
    expect(await gdb.next()).toBe("W00");
  });

  it("no packet, however malformed, ends the stream or the machine", async () => {
    const { gdb, counted } = await attach();
    await gdb.ask("?");
    const heads = ["g", "G", "p", "P", "m", "M", "X", "Z0", "z1", "Z4", "H", "T", "q", "Q", "qRcmd,", "qXfer:features:read:target.xml:", "vCont;s", "vCont;", "v", "Qqemu.PhyMemMode:", ""];
    const packet = fc.tuple(fc.constantFrom(...heads), fc.string({ unit: fc.constantFrom(..."0123456789abcdef,:;=-+zZ\x00\xff} ".split("")), maxLength: 24 }));
    await fc.assert(
      fc.asyncProperty(packet, async ([head, tail]) => {
        const text = head + tail;
        if (/^(c|C|D|k|vKill)|^vCont;(c|C|.*;c|.*;C)/.test(text)) return; // those run the guest
        expect(typeof (await gdb.ask(text))).toBe("string");
      }),
      { numRuns: 400 },
    );
    for (const bad of ["m0,ffffffffffffffff", "Mffffffffffffffff,4:00000000", "X80000000,4:", "P20", `Z0,${"f".repeat(30)},4`, "vCont;s:99", "Hg99", "T0x"]) {
      expect(await gdb.ask(bad), bad).toMatch(/^E|^$/);
    }
    gdb.close();
    const before = await counted();
    await expect.poll(counted).toBeGreaterThanOrEqual(before);
  });
});
