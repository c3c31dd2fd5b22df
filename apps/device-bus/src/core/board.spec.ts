import { ContractError } from "@polyvisor/contracts";
import type { BoardEvent } from "@polyvisor/contracts/device";
import { ADDRESS_MAP, findNode, readFdt, readText } from "@polyvisor/machine";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { boardRequest, rig, settle, TestHart } from "../testing/rig.ts";

const MACHINE = "m";
const UART = ADDRESS_MAP.uart.base;
const FINISHER = ADDRESS_MAP.testFinisher.base;
const ALL = [
  { kind: "blk", id: "disk0", backend: "d" },
  { kind: "net", id: "net0", backend: "p", mac: "52:54:00:00:00:01" },
  { kind: "console", id: "console0", backend: "hvc-agent" },
  { kind: "rng", id: "rng0" },
];

async function withBoard(devices: Parameters<typeof boardRequest>[1] = [], harts = 1) {
  const all = await rig();
  all.images.disks.set("d", new Uint8Array(8192));
  const { deviceTree } = await all.port.createBoard(boardRequest(MACHINE, devices, harts));
  const events: BoardEvent[] = [];
  const watch = all.port.watchBoard({ machine: MACHINE });
  watch.onMessage((event) => void events.push(event));
  return { ...all, deviceTree, events, watch, hart: new TestHart(all.port, MACHINE), states: () => events.map(({ state }) => state) };
}

describe("board", () => {
  it("answers a device tree with a node per device, and describes the same windows", async () => {
    const { deviceTree, port } = await withBoard(ALL, 2);
    const tree = readFdt(deviceTree);
    expect(readText(findNode(tree, "/chosen")!.properties.get("bootargs")!)).toEqual(["console=ttyS0"]);
    expect(findNode(tree, "/soc/virtio_mmio@10004000")).toBeDefined();
    const { windows } = await port.describeBoard({ machine: MACHINE });
    expect(windows.map(({ device }) => device)).toEqual(["test", "rtc", "plic", "serial0", "disk0", "net0", "console0", "rng0"]);
    expect(windows.find(({ device }) => device === "net0")).toMatchObject({ base: 0x1000_2000n, interrupt: 2, compatible: "virtio,mmio" });
  });

  it("grants each device the machine's RAM, opens its backends, and gives all back on destruction", async () => {
    const { memory, images, network, port, watch, states, facts } = await withBoard(ALL);
    expect(memory.grants.get("m/disk0")).toEqual([{ range: { base: ADDRESS_MAP.ram.base, bytes: BigInt(memory.bytes.length) }, write: true }]);
    expect([images.openDisks, network.openPorts, memory.openStreams]).toEqual([["d"], ["p"], 1]);
    await port.destroyBoard({ machine: MACHINE });
    expect([images.openDisks, network.openPorts, memory.openStreams, memory.grants.get("m/disk0")]).toEqual([[], [], 0, []]);
    expect([states(), watch.closed]).toEqual([["on", "destroyed"], true]);
    await port.destroyBoard({ machine: MACHINE });
    expect(facts.map(({ fact }) => fact)).toEqual(["board-created", "board-destroyed"]);
  });

  it("leaves nothing open when a backend is missing, and can be created when it is there", async () => {
    const { port, images, memory, network } = await rig();
    const request = boardRequest(MACHINE, ALL);
    await expect(port.createBoard(request)).rejects.toMatchObject({ condition: "not-found" });
    expect([images.openDisks, network.openPorts, memory.openStreams]).toEqual([[], [], 0]);
    images.disks.set("d", new Uint8Array(8192));
    await expect(port.createBoard(request)).resolves.toBeDefined();
  });

  it("sends external interrupts for the harts' contexts, only on change, from the first exit on", async () => {
    const { cpu, hart } = await withBoard([], 2);
    expect(cpu.openStreams).toBe(0);
    hart.read(UART + 5n, 1);
    expect(cpu.signals.map(({ hart: index, line, level }) => [index, line, level])).toEqual([[0, 1, false], [0, 2, false], [1, 1, false], [1, 2, false]]);
    const plic = ADDRESS_MAP.plic.base;
    hart.write(plic + 4n * 10n, 4, 1n);
    hart.write(plic + 0x2000n + 0x80n * 3n, 4, 1n << 10n);
    hart.write(UART + 1n, 1, 2n);
    hart.write(UART + 1n, 1, 2n);
    expect(cpu.signals.slice(4).map(({ hart: index, line, level }) => [index, line, level])).toEqual([[1, 2, true]]);
    expect(new Set(cpu.signals.map(({ sequence }) => sequence)).size).toBe(cpu.signals.length);
  });

  it("powers off with the finisher's code, once, and tells it with a fact", async () => {
    const { hart, events, facts } = await withBoard();
    hart.write(FINISHER, 4, 0x0003_3333n);
    hart.write(FINISHER, 4, 0x5555n);
    expect(events.slice(1)).toMatchObject([{ state: "powered-off", exitCode: 3 }]);
    expect(facts.at(-1)).toMatchObject({ machine: MACHINE, service: "device-bus", fact: "board-powered-off", data: { exitCode: 3 } });
  });

  it.each([[0, 0, "powered-off", 0], [0, 1, "powered-off", 1], [1, 0, "reset", 0], [2, 0, "reset", 0]])("SBI system reset type %i, reason %i → %s", async (type, reason, state, exitCode) => {
    const { hart, events } = await withBoard();
    hart.say({ $case: "systemReset", value: { type, reason } });
    expect(events.at(-1)).toMatchObject({ state, exitCode });
  });

  it("comes back from a reset with devices in their power-on state", async () => {
    const { hart, port, states } = await withBoard([ALL[3]!]);
    hart.write(UART + 7n, 1, 0x55n);
    hart.write(ADDRESS_MAP.virtio.base + 0x70n, 4, 3n);
    hart.write(FINISHER, 4, 0x7777n);
    await port.resetBoard({ machine: MACHINE });
    expect([hart.read(UART + 7n, 1), hart.read(ADDRESS_MAP.virtio.base + 0x70n, 4)]).toEqual([0n, 0n]);
    expect(states()).toEqual(["on", "reset", "on"]);
  });

  it.each(["memory", "images"] as const)("fails when the stream to %s breaks, and still answers exits", async (peer) => {
    const all = await withBoard(ALL);
    all[peer].breakStreams();
    expect(all.events.at(-1)).toMatchObject({ state: "failed" });
    expect(all.events.at(-1)!.reason).toContain("gone");
    expect(all.hart.read(UART + 5n, 1)).toBe(0x60n);
    await expect(all.port.resetBoard({ machine: MACHINE })).rejects.toMatchObject({ condition: "precondition" });
  });

  it("a network-fabric that goes is the end of a cable: the guest's link goes down, and up again when it is back", async () => {
    const all = await withBoard(ALL);
    const before = all.network.openPorts.length;
    all.network.breakStreams();
    expect(all.network.openPorts).toEqual([]);
    expect(all.states()).toEqual(["on"]);
    await expect.poll(() => all.network.openPorts.length).toBe(before);
    expect(all.events.at(-1)).toMatchObject({ state: "on" });
  });

  it("fails when the cpu-emulator is lost, not when its harts end", async () => {
    const first = await withBoard();
    first.hart.read(UART, 1);
    first.cpu.endStreams();
    new TestHart(first.port, MACHINE).read(UART, 1);
    first.cpu.breakStreams(new ContractError("not-found", "no harts"));
    expect(first.states()).toEqual(["on"]);
    new TestHart(first.port, MACHINE).read(UART, 1);
    expect(first.cpu.openStreams).toBe(1);
    first.cpu.breakStreams();
    expect(first.states()).toEqual(["on", "failed"]);
  });

  it("is the same board for the same request, and refuses another", async () => {
    const { port, deviceTree } = await withBoard(ALL);
    expect((await port.createBoard(boardRequest(MACHINE, ALL))).deviceTree).toEqual(deviceTree);
    await expect(port.createBoard(boardRequest(MACHINE, ALL, 2))).rejects.toMatchObject({ condition: "already-exists" });
  });

  it.each([
    ["a name with a slash", { machine: "a/b" }],
    ["no harts", { harts: 0 }],
    ["odd RAM", { ramBytes: 4097n }],
    ["an initrd outside RAM", { initrdStart: 1n, initrdEnd: 2n }],
    ["an ISA that is none", { isa: "x86" }],
    ["an unknown device", { devices: [{ kind: "gpu", id: "g", backend: "", mac: "", readOnly: false }] }],
    ["a bad address", { devices: [{ kind: "net", id: "n", backend: "p", mac: "52:54", readOnly: false }] }],
    ["two devices of one name", { devices: [0, 1].map(() => ({ kind: "rng", id: "r", backend: "", mac: "", readOnly: false })) }],
    ["nine devices", { devices: Array.from({ length: 9 }, (_, index) => ({ kind: "rng", id: `r${index}`, backend: "", mac: "", readOnly: false })) }],
  ])("refuses %s", async (_, change) => {
    const { port } = await rig();
    await expect(port.createBoard({ ...boardRequest(MACHINE), ...change })).rejects.toMatchObject({ condition: "invalid" });
  });

  it("counts accesses by device, and what nothing decodes", async () => {
    const { port, hart } = await withBoard([ALL[3]!]);
    hart.read(UART + 5n, 1);
    hart.write(UART, 1, 65n);
    expect(hart.read(0x4000_0000n, 4)).toBeUndefined();
    hart.write(ADDRESS_MAP.virtio.base + 0x50n, 4, 0n);
    const { counters } = await port.readBoardStats({ machine: MACHINE });
    expect(["serial0.read", "serial0.write", "bus.unmapped", "rng0.notify"].map((name) => counters.get(name))).toEqual([1n, 1n, 1n, 1n]);
  });

  it("survives any exits, on every device, from several harts", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            base: fc.constantFrom(...[0, 1, 2, 3].map((slot) => ADDRESS_MAP.virtio.base + BigInt(slot) * 0x1000n), UART, ADDRESS_MAP.plic.base, ADDRESS_MAP.plic.base + 0x20_0000n, ADDRESS_MAP.rtc.base, 0n),
            offset: fc.nat(0x17f),
            size: fc.constantFrom(0, 1, 2, 4, 8, 3, 0xffff_ffff),
            value: fc.oneof(fc.bigInt(0n, 15n), fc.bigInt(0n, (1n << 64n) - 1n)),
            read: fc.boolean(),
          }),
          { maxLength: 60 },
        ),
        async (exits) => {
          const { port, hart, service } = await withBoard(ALL);
          for (const { base, offset, size, value, read } of exits) {
            if (read) hart.ask({ $case: "mmioRead", value: { address: base + BigInt(offset), size } });
            else hart.write(base + BigInt(offset), size, value);
          }
          await settle();
          expect(hart.read(UART + 5n, 1)).toBeDefined();
          await port.destroyBoard({ machine: MACHINE });
          await service.close();
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("console of serial0", () => {
  it("shows what SBI and UART print, in order, and feeds what is typed to whichever reads", async () => {
    const { hart, port } = await withBoard();
    const console = port.console();
    let text = "";
    console.onMessage(({ data }) => void (text += new TextDecoder().decode(data)));
    console.send({ machine: MACHINE, console: "serial0", data: new Uint8Array(0), noReplay: false });
    hart.say({ $case: "consoleWrite", value: { data: new TextEncoder().encode("sbi ") } });
    hart.write(UART, 1, 0x75n);
    hart.write(FINISHER, 4, 0x5555n);
    expect(text).toBe("sbi u");
    console.send({ machine: MACHINE, console: "serial0", data: new TextEncoder().encode("abc"), noReplay: false });
    expect(hart.read(UART, 1)).toBe(0x61n);
    hart.read(UART, 1);
    hart.read(UART, 1);
    expect(hart.ask({ $case: "consoleRead", value: { maxBytes: 10 } }).data).toEqual(new Uint8Array(0));
  });

  it("says what is wrong with a console or machine that is not there", async () => {
    const { port } = await withBoard();
    for (const [machine, name] of [[MACHINE, "nope"], ["other", "serial0"]] as const) {
      const channel = port.console();
      const closed = new Promise((resolve) => channel.onClose(resolve));
      channel.send({ machine, console: name, data: new Uint8Array(0), noReplay: false });
      expect(await closed).toMatchObject({ condition: "not-found" });
    }
  });
});
