import assert from "node:assert/strict";
import { ContractError, type Channel, type Condition } from "@polyvisor/contracts";
import {
  DEVICE,
  ExitStatus,
  type BoardEvent,
  type CreateBoardRequest,
  type DevicePort,
  type DeviceSpec,
  type ExitRequest,
  type ExitResponse,
} from "@polyvisor/contracts/device";
import { ADDRESS_MAP, findNode, readCells, readFdt, readText } from "@polyvisor/machine";
import type { ConformanceCase, ConformanceEnvironment, ConformanceSuite } from "../suite.ts";

const { uart, plic, rtc, testFinisher, virtio } = ADDRESS_MAP;
const RNG: DeviceSpec = { kind: "rng", id: "rng0", backend: "", mac: "", readOnly: false };
const encode = (text: string) => new TextEncoder().encode(text);

function boardRequest(machine: string, change: Partial<CreateBoardRequest> = {}): CreateBoardRequest {
  return {
    machine,
    harts: 2,
    ramBase: ADDRESS_MAP.ram.base,
    ramBytes: 64n << 20n,
    isa: "rv64imafdc_zicsr_zifencei",
    bootArguments: "console=ttyS0",
    initrdStart: 0n,
    initrdEnd: 0n,
    devices: [],
    mmu: "riscv,sv39",
    deterministic: false,
    ...change,
  };
}

async function fails(promise: Promise<unknown>, condition: Condition): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof ContractError, String(error));
    assert.equal(error.condition, condition, error.message);
    return true;
  });
}

/** A hart's exits stream. */
class Hart {
  readonly channel: Channel<ExitRequest, ExitResponse>;
  readonly closed: Promise<ContractError | undefined>;
  readonly responses: ExitResponse[] = [];
  readonly #environment: ConformanceEnvironment;
  readonly #machine: string;
  readonly #hart: number;
  readonly #waiting = new Map<bigint, (response: ExitResponse) => void>();
  #id = 0n;

  constructor(port: DevicePort, environment: ConformanceEnvironment, machine: string, hart = 0) {
    this.#environment = environment;
    this.#machine = machine;
    this.#hart = hart;
    this.channel = port.exits();
    this.closed = new Promise((resolve) => this.channel.onClose(resolve));
    this.channel.onMessage((response) => {
      this.responses.push(response);
      this.#waiting.get(response.id)?.(response);
    });
  }
  post(exit: ExitRequest["exit"]): void {
    this.channel.send({ machine: this.#machine, hart: this.#hart, id: 0n, exit });
  }
  ask(exit: ExitRequest["exit"]): Promise<ExitResponse> {
    const id = ++this.#id;
    const answer = new Promise<ExitResponse>((resolve) => this.#waiting.set(id, resolve));
    this.channel.send({ machine: this.#machine, hart: this.#hart, id, exit });
    return this.#environment.within(5000, answer, `answer to exit ${id}`);
  }
  write(address: bigint, size: number, value: bigint): void {
    this.post({ $case: "mmioWrite", value: { address, size, value } });
  }
  async read(address: bigint, size: number): Promise<bigint> {
    const response = await this.ask({ $case: "mmioRead", value: { address, size } });
    assert.equal(response.status, ExitStatus.OK, `read of ${size} bytes at 0x${address.toString(16)}`);
    return response.value;
  }
  async faults(address: bigint, size: number): Promise<void> {
    const response = await this.ask({ $case: "mmioRead", value: { address, size } });
    assert.equal(response.status, ExitStatus.ACCESS_FAULT, `read of ${size} bytes at 0x${address.toString(16)}`);
  }
}

/** A console client that gathers output. */
class Client {
  readonly channel;
  readonly closed: Promise<ContractError | undefined>;
  text = "";
  readonly #machine: string;
  readonly #console: string;
  #look: () => void = () => {};
  constructor(port: DevicePort, machine: string, console: string, noReplay = false) {
    this.#machine = machine;
    this.#console = console;
    this.channel = port.console();
    this.closed = new Promise((resolve) => this.channel.onClose(resolve));
    this.channel.onMessage(({ data }) => {
      this.text += new TextDecoder().decode(data);
      this.#look();
    });
    this.channel.send({ machine, console, data: new Uint8Array(0), noReplay });
  }
  type(text: string): void {
    this.channel.send({ machine: this.#machine, console: this.#console, data: encode(text), noReplay: false });
  }
  shows(text: string, environment: ConformanceEnvironment): Promise<void> {
    const seen = new Promise<void>((resolve) => {
      this.#look = () => void (this.text.includes(text) && resolve());
      this.#look();
    });
    return environment.within(5000, seen, `output ${JSON.stringify(text)}`);
  }
}

class Watch {
  readonly events: BoardEvent[] = [];
  readonly closed: Promise<ContractError | undefined>;
  #look: () => void = () => {};
  constructor(port: DevicePort, machine: string) {
    const channel = port.watchBoard({ machine });
    this.closed = new Promise((resolve) => channel.onClose(resolve));
    channel.onMessage((event) => {
      this.events.push(event);
      this.#look();
    });
  }
  until(state: string, environment: ConformanceEnvironment): Promise<BoardEvent> {
    const seen = new Promise<BoardEvent>((resolve) => {
      this.#look = () => {
        const event = this.events.find((candidate) => candidate.state === state);
        if (event) resolve(event);
      };
      this.#look();
    });
    return environment.within(5000, seen, `board state ${state}`);
  }
}

type Run = (board: { port: DevicePort; machine: string; hart: Hart; deviceTree: Uint8Array; environment: ConformanceEnvironment }) => Promise<void>;

/** A case on a fresh board, destroyed afterwards whatever happens. */
function onBoard(requirement: string, title: string, run: Run, options: { devices?: DeviceSpec[]; needs?: string[] } = {}): ConformanceCase<typeof DEVICE.definition> {
  return {
    requirement,
    title,
    ...(options.needs ? { needs: options.needs } : {}),
    async run(port, environment) {
      const machine = environment.unique("board");
      const { deviceTree } = await port.createBoard(boardRequest(machine, { devices: options.devices ?? [] }));
      const hart = new Hart(port, environment, machine);
      try {
        await run({ port, machine, hart, deviceTree, environment });
      } finally {
        hart.channel.close();
        await port.destroyBoard({ machine });
      }
    },
  };
}

const cases: ConformanceCase<typeof DEVICE.definition>[] = [
  onBoard("DEV-1", "the same request again answers the same device tree, another one already-exists", async ({ port, machine, deviceTree }) => {
    const again = await port.createBoard(boardRequest(machine));
    assert.deepEqual(Buffer.from(again.deviceTree), Buffer.from(deviceTree));
    await fails(port.createBoard(boardRequest(machine, { harts: 1 })), "already-exists");
  }),
  {
    requirement: "DEV-1",
    title: "a request that can never work is invalid and creates nothing",
    async run(port, { unique }) {
      const machine = unique("bad");
      const bad: Partial<CreateBoardRequest>[] = [
        { harts: 0 },
        { harts: 9 },
        { ramBytes: 1n },
        { ramBase: 0n },
        { isa: "" },
        { initrdStart: 1n, initrdEnd: 0n },
        { devices: [{ ...RNG, kind: "toaster" }] },
        { devices: [RNG, RNG] },
        { devices: Array.from({ length: 9 }, (_, index) => ({ ...RNG, id: `rng${index}` })) },
      ];
      for (const change of bad) await fails(port.createBoard(boardRequest(machine, change)), "invalid");
      await fails(port.createBoard(boardRequest("")), "invalid");
      await fails(port.describeBoard({ machine }), "not-found");
    },
  },
  {
    requirement: "DEV-2",
    title: "destruction is idempotent, ends watchers and consoles, and frees the name",
    async run(port, environment) {
      const machine = environment.unique("gone");
      await port.destroyBoard({ machine });
      await port.createBoard(boardRequest(machine));
      const watch = new Watch(port, machine);
      const client = new Client(port, machine, "serial0");
      await watch.until("on", environment);
      await port.destroyBoard({ machine });
      await watch.until("destroyed", environment);
      assert.equal(await environment.within(5000, watch.closed, "end of the watch"), undefined);
      await environment.within(5000, client.closed, "end of the console");
      await fails(port.readBoardStats({ machine }), "not-found");
      await fails(port.resetBoard({ machine }), "not-found");
      await port.createBoard(boardRequest(machine, { harts: 1 }));
      await port.destroyBoard({ machine });
    },
  },
  onBoard("DEV-3", "the device tree says what was asked for, and nothing that is not there", async ({ deviceTree }) => {
    const tree = readFdt(deviceTree);
    assert.deepEqual(readText(findNode(tree, "/chosen")!.properties.get("bootargs")!), ["console=ttyS0"]);
    assert.deepEqual(readCells(findNode(tree, "/memory@80000000")!.properties.get("reg")!), [0, 0x8000_0000, 0, 64 << 20]);
    assert.ok(findNode(tree, "/cpus/cpu@1"));
    assert.equal(findNode(tree, "/cpus/cpu@2"), undefined);
    assert.deepEqual(readText(findNode(tree, "/cpus/cpu@0")!.properties.get("mmu-type")!), ["riscv,sv39"]);
    assert.equal(findNode(tree, "/soc/virtio_mmio@10001000"), undefined);
  }),
  onBoard("DEV-4", "windows are listed in ascending order and do not overlap", async ({ port, machine }) => {
    const { windows } = await port.describeBoard({ machine });
    assert.deepEqual(windows.map(({ device }) => device), ["test", "rtc", "plic", "serial0"]);
    for (const [index, window] of windows.entries()) {
      const next = windows[index + 1];
      assert.ok(!next || window.base + window.bytes <= next.base);
    }
    assert.equal(windows.find(({ device }) => device === "serial0")!.interrupt, uart.irq);
  }),
  onBoard("DEV-5", "posted writes take effect before the read behind them, and only reads are answered", async ({ hart }) => {
    for (let value = 0n; value < 50n; value++) {
      hart.write(uart.base + 7n, 1, value);
      assert.equal(await hart.read(uart.base + 7n, 1), value);
    }
    assert.equal(hart.responses.length, 50);
  }),
  onBoard("DEV-5", "reads sent without waiting are each answered once, by id", async ({ hart, machine }) => {
    const answers = await Promise.all(Array.from({ length: 100 }, () => hart.ask({ $case: "mmioRead", value: { address: uart.base + 5n, size: 1 } })));
    assert.deepEqual(answers.map(({ id }) => id), Array.from({ length: 100 }, (_, index) => BigInt(index + 1)));
    assert.ok(answers.every((answer) => answer.machine === machine && answer.hart === 0));
  }),
  {
    requirement: "DEV-5",
    title: "exits of a machine without a board end the stream with not-found",
    async run(port, environment) {
      const hart = new Hart(port, environment, environment.unique("nobody"));
      hart.write(uart.base, 1, 65n);
      const error = await environment.within(5000, hart.closed, "end of the stream");
      assert.equal(error?.condition, "not-found");
    },
  },
  onBoard("DEV-6", "what nothing decodes and widths a device cannot do fault; the stream goes on", async ({ hart, port, machine }) => {
    await hart.faults(0x4000_0000n, 4);
    await hart.faults((1n << 64n) - 8n, 8);
    await hart.faults(uart.base, 3);
    await hart.faults(plic.base + 1n, 4);
    await hart.faults(plic.base, 1);
    hart.write(0x4000_0000n, 4, 1n);
    hart.write(plic.base, 0xffff_ffff, (1n << 64n) - 1n);
    assert.equal(await hart.read(uart.base + 5n, 1), 0x60n);
    const { counters } = await port.readBoardStats({ machine });
    assert.ok(counters.get("bus.unmapped")! >= 6n);
  }),
  onBoard("DEV-6", "a 64-bit access is two 32-bit ones", async ({ hart }) => {
    hart.write(plic.base + 8n, 8, 0x0000_0003_0000_0005n);
    assert.equal(await hart.read(plic.base + 8n, 4), 5n);
    assert.equal(await hart.read(plic.base + 12n, 4), 3n);
    assert.equal(await hart.read(plic.base + 8n, 8), 0x0000_0003_0000_0005n);
  }),
  onBoard("DEV-7", "the UART detects as a 16550A and interrupts when THR is empty, until IIR is read", async ({ hart }) => {
    hart.write(uart.base + 2n, 1, 1n);
    assert.equal(await hart.read(uart.base + 2n, 1), 0xc1n);
    hart.write(uart.base + 1n, 1, 2n);
    assert.equal(await hart.read(uart.base + 2n, 1), 0xc2n);
    assert.equal(await hart.read(uart.base + 2n, 1), 0xc1n);
  }),
  onBoard("DEV-8", "a source goes through pending, claim and completion at the context that enabled it", async ({ hart }) => {
    const context = (number: bigint) => plic.base + 0x20_0000n + 0x1000n * number;
    hart.write(plic.base + 4n * BigInt(uart.irq), 4, 1n);
    hart.write(plic.base + 0x2000n + 0x80n * 3n, 4, 1n << BigInt(uart.irq));
    hart.write(uart.base + 1n, 1, 2n);
    assert.equal(await hart.read(plic.base + 0x1000n, 4), 1n << BigInt(uart.irq));
    assert.equal(await hart.read(context(1n) + 4n, 4), 0n);
    assert.equal(await hart.read(context(3n) + 4n, 4), BigInt(uart.irq));
    assert.equal(await hart.read(context(3n) + 4n, 4), 0n);
    hart.write(context(3n) + 4n, 4, BigInt(uart.irq));
    assert.equal(await hart.read(context(3n) + 4n, 4), BigInt(uart.irq));
  }),
  ...([
    [0x5555n, "powered-off", 0],
    [0x0007_3333n, "powered-off", 7],
    [0x3333n, "powered-off", 1],
    [0x7777n, "reset", 0],
  ] as const).map(([value, state, code]) =>
    onBoard("DEV-9", `finisher 0x${value.toString(16)} → ${state} with code ${code}, after the last output`, async ({ hart, port, machine, environment }) => {
      const watch = new Watch(port, machine);
      const client = new Client(port, machine, "serial0");
      await watch.until("on", environment);
      hart.post({ $case: "consoleWrite", value: { data: encode("bye") } });
      hart.write(testFinisher.base, 4, value);
      hart.write(testFinisher.base, 4, 0x0009_3333n);
      assert.equal((await watch.until(state, environment)).exitCode, code);
      await client.shows("bye", environment);
      assert.equal(await hart.read(uart.base + 5n, 1), 0x60n);
    }),
  ),
  onBoard("DEV-9", "SBI shutdown powers off, with code 1 for a system failure", async ({ hart, port, machine, environment }) => {
    const watch = new Watch(port, machine);
    hart.post({ $case: "systemReset", value: { type: 0, reason: 1 } });
    assert.equal((await watch.until("powered-off", environment)).exitCode, 1);
  }),
  {
    requirement: "DEV-10",
    title: "watching a machine without a board ends with not-found",
    async run(port, environment) {
      const watch = new Watch(port, environment.unique("nobody"));
      assert.equal((await environment.within(5000, watch.closed, "end of the watch"))?.condition, "not-found");
    },
  },
  onBoard("DEV-11", "a reset puts devices into their power-on state and the board on", async ({ hart, port, machine, environment }) => {
    const watch = new Watch(port, machine);
    hart.write(uart.base + 7n, 1, 0x5an);
    hart.write(plic.base + 8n, 4, 5n);
    hart.write(testFinisher.base, 4, 0x7777n);
    await watch.until("reset", environment);
    await port.resetBoard({ machine });
    assert.equal(await hart.read(uart.base + 7n, 1), 0n);
    assert.equal(await hart.read(plic.base + 8n, 4), 0n);
    assert.equal((await port.readBoardStats({ machine })).counters.get("bus.unmapped"), 0n);
  }),
  onBoard("DEV-12", "output of UART and SBI reaches every client in order, late ones from the ring", async ({ hart, port, machine, environment }) => {
    const first = new Client(port, machine, "serial0");
    for (const byte of encode("uart ")) hart.write(uart.base, 1, BigInt(byte));
    hart.post({ $case: "consoleWrite", value: { data: encode("sbi\n") } });
    await first.shows("uart sbi\n", environment);
    const late = new Client(port, machine, "serial0");
    await late.shows("uart sbi\n", environment);
    const live = new Client(port, machine, "serial0", true);
    live.type("x"); // its attachment has been seen when the guest gets this
    while (((await hart.read(uart.base + 5n, 1)) & 1n) === 0n);
    hart.post({ $case: "consoleWrite", value: { data: encode("more") } });
    await live.shows("more", environment);
    assert.equal(live.text, "more");
    assert.equal(first.text, "uart sbi\nmore".slice(0, first.text.length));
  }),
  onBoard("DEV-12", "input is read through UART and SBI, once and in order", async ({ hart, port, machine }) => {
    const client = new Client(port, machine, "serial0");
    hart.write(uart.base + 2n, 1, 1n);
    client.type("abcdefghijklmnopqrst");
    let text = "";
    while (text.length < 4) if (((await hart.read(uart.base + 5n, 1)) & 1n) === 1n) text += String.fromCharCode(Number(await hart.read(uart.base, 1)));
    assert.equal(text, "abcd");
    const { data, status } = await hart.ask({ $case: "consoleRead", value: { maxBytes: 100 } });
    assert.equal(status, ExitStatus.OK);
    assert.equal("abcdefghijklmnopqrst".endsWith(new TextDecoder().decode(data)), true);
  }),
  onBoard("DEV-12", "a console that does not exist ends the stream with not-found", async ({ port, machine, environment }) => {
    const client = new Client(port, machine, "nope");
    assert.equal((await environment.within(5000, client.closed, "end of the console"))?.condition, "not-found");
  }),
  onBoard("DEV-13", "a virtio slot identifies its device and negotiates VERSION_1 only with what it offers", async ({ hart, deviceTree }) => {
    const slot = virtio.base;
    assert.equal(await hart.read(slot, 4), 0x7472_6976n);
    assert.equal(await hart.read(slot + 4n, 4), 2n);
    assert.equal(await hart.read(slot + 8n, 4), 4n);
    hart.write(slot + 0x70n, 4, 3n);
    hart.write(slot + 0x70n, 4, 11n);
    assert.equal(await hart.read(slot + 0x70n, 4), 3n);
    hart.write(slot + 0x24n, 4, 1n);
    hart.write(slot + 0x20n, 4, 1n);
    hart.write(slot + 0x70n, 4, 11n);
    assert.equal(await hart.read(slot + 0x70n, 4), 11n);
    assert.ok(findNode(readFdt(deviceTree), "/soc/virtio_mmio@10001000"));
  }, { devices: [RNG], needs: ["memory"] }),
  onBoard("DEV-13", "rings outside RAM make the device need a reset, and a reset heals it", async ({ hart, environment }) => {
    const slot = virtio.base;
    hart.write(slot + 0x70n, 4, 3n);
    hart.write(slot + 0x24n, 4, 1n);
    hart.write(slot + 0x20n, 4, 1n);
    hart.write(slot + 0x70n, 4, 11n);
    hart.write(slot + 0x38n, 4, 8n);
    for (const register of [0x84n, 0x94n, 0xa4n]) hart.write(slot + register, 4, 0xffn);
    hart.write(slot + 0x44n, 4, 1n);
    hart.write(slot + 0x70n, 4, 15n);
    hart.write(slot + 0x50n, 4, 0n);
    const needsReset = async () => {
      while (((await hart.read(slot + 0x70n, 4)) & 64n) === 0n);
    };
    await environment.within(5000, needsReset(), "DEVICE_NEEDS_RESET");
    hart.write(slot + 0x70n, 4, 0n);
    assert.equal(await hart.read(slot + 0x70n, 4), 0n);
  }, { devices: [RNG], needs: ["memory"] }),
  onBoard("DEV-15", "stats count accesses by device", async ({ hart, port, machine }) => {
    await hart.read(rtc.base, 4);
    await hart.read(rtc.base + 4n, 4);
    hart.write(rtc.base + 0x10n, 4, 0n);
    await hart.read(uart.base + 5n, 1);
    const { counters } = await port.readBoardStats({ machine });
    assert.deepEqual(["rtc.read", "rtc.write", "serial0.read"].map((name) => counters.get(name)), [2n, 1n, 1n]);
  }),
  onBoard("DEV-16", "what is not built answers unimplemented", async ({ port, machine }) => {
    const channel = port.display({ machine, display: "display0" });
    const error = await new Promise<ContractError | undefined>((resolve) => channel.onClose(resolve));
    assert.equal(error?.condition, "unimplemented");
  }),
  onBoard("DEV-17", "a paused board keeps input from the guest until it is resumed; pausing twice is pausing once", async ({ port, machine, hart, environment }) => {
    await hart.read(uart.base + 5n, 1);
    await fails(port.saveBoard({ machine }), "precondition");
    await port.pauseBoard({ machine });
    await port.pauseBoard({ machine });
    const client = new Client(port, machine, "serial0");
    client.type("k");
    const dataReady = async () => (await hart.read(uart.base + 5n, 1)) & 1n;
    assert.equal(await dataReady(), 0n);
    await port.resumeBoard({ machine });
    const came = async () => {
      while ((await dataReady()) === 0n);
    };
    await environment.within(5000, came(), "the input");
    assert.equal(await hart.read(uart.base, 1), BigInt("k".charCodeAt(0)));
    client.channel.close();
  }),
  onBoard("DEV-18", "what is saved comes back in another board of the same shape: registers, output, and a claimed interrupt's completion", async ({ port, machine, hart, environment }) => {
    hart.write(uart.base + 7n, 1, 0x5an);
    hart.write(plic.base + 4n * 10n, 4, 5n);
    hart.write(plic.base + 0x2080n, 4, 1n << 10n);
    hart.write(rtc.base + 0x10n, 4, 1n);
    hart.write(uart.base, 1, BigInt("x".charCodeAt(0)));
    assert.equal(await hart.read(uart.base + 7n, 1), 0x5an); // also: everything before it is done
    await port.pauseBoard({ machine });
    const { state } = await port.saveBoard({ machine });
    const other = environment.unique("board");
    await port.createBoard(boardRequest(other));
    try {
      await port.restoreBoard({ machine: other, state });
      const restored = new Hart(port, environment, other);
      assert.equal(await restored.read(uart.base + 7n, 1), 0x5an);
      assert.equal(await restored.read(plic.base + 4n * 10n, 4), 5n);
      assert.equal(await restored.read(plic.base + 0x2080n, 4), 1n << 10n);
      const client = new Client(port, other, "serial0");
      await client.shows("x", environment);
      client.channel.close();
      restored.channel.close();
    } finally {
      await port.destroyBoard({ machine: other });
    }
  }),
  onBoard("DEV-19", "settle is answered when what was written is done; posted it is not; it says when the machine has ended", async ({ hart }) => {
    hart.post({ $case: "settle", value: { time: 5n } });
    assert.equal((await hart.ask({ $case: "settle", value: { time: 10n } })).value, 0n);
    hart.write(testFinisher.base, 4, 0x5555n);
    assert.equal((await hart.ask({ $case: "settle", value: { time: 20n } })).value, 0xffff_ffff_ffff_ffffn);
    assert.deepEqual(hart.responses.map(({ id, status }) => [id, status]), [[1n, ExitStatus.OK], [2n, ExitStatus.OK]]);
  }),
  {
    requirement: "DEV-19",
    title: "deterministic boards are alike: device tree with its random seed, and an RTC that stands where the hart says",
    async run(port, environment) {
      const seen: unknown[] = [];
      for (let n = 0; n < 2; n++) {
        const machine = environment.unique("board");
        const { deviceTree } = await port.createBoard(boardRequest(machine, { deterministic: true, harts: 1 }));
        const hart = new Hart(port, environment, machine);
        const look = async (): Promise<bigint> => (await hart.read(rtc.base, 4)) | ((await hart.read(rtc.base + 4n, 4)) << 32n);
        hart.post({ $case: "settle", value: { time: 1000n } });
        const before = await look();
        await new Promise((resolve) => setTimeout(resolve, 15));
        assert.equal(await look(), before);
        await hart.ask({ $case: "settle", value: { time: 11_000n } });
        assert.equal((await look()) - before, 1_000_000n);
        seen.push([Buffer.from(deviceTree).toString("hex"), before]);
        hart.channel.close();
        await port.destroyBoard({ machine });
      }
      assert.deepEqual(seen[1], seen[0]);
      await fails(port.createBoard(boardRequest(environment.unique("board"), { deterministic: true, harts: 2 })), "invalid");
    },
  },
  onBoard("DEV-18", "a damaged state → corrupt; of another version, or of a board of another shape → invalid", async ({ port, machine, environment }) => {
    await port.pauseBoard({ machine });
    const { state } = await port.saveBoard({ machine });
    const changed = (at: number, value: number) => Uint8Array.from(state, (byte, index) => (index === at ? value : byte));
    const other = environment.unique("board");
    await port.createBoard(boardRequest(other, { harts: 1 }));
    try {
      await fails(port.restoreBoard({ machine: other, state }), "invalid");
      for (const bad of [new Uint8Array(0), state.subarray(0, 9), changed(state.length - 1, state.at(-1)! ^ 1), changed(0, 0)]) await fails(port.restoreBoard({ machine: other, state: bad }), "corrupt");
      await fails(port.restoreBoard({ machine: other, state: changed("PVBOARD".length, 200) }), "invalid");
    } finally {
      await port.destroyBoard({ machine: other });
    }
  }),
];

export const DEVICE_SUITE: ConformanceSuite<typeof DEVICE.definition> = { contract: DEVICE, cases };
