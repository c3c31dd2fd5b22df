import { ContractError, type Sink } from "@polyvisor/contracts";
import type { BoardEvent } from "@polyvisor/contracts/device";
import type { CpuPort } from "@polyvisor/contracts/cpu";
import type { ImagePort } from "@polyvisor/contracts/image";
import type { MemoryPort } from "@polyvisor/contracts/memory";
import type { NetworkPort } from "@polyvisor/contracts/network";
import { ADDRESS_MAP, deviceTree, writeFdt } from "@polyvisor/machine";
import { MmioTransport, type VirtioDevice } from "@polyvisor/virtio";
import { BlockClient } from "./block-client.ts";
import type { BoardPlan, DevicePlan } from "./board-request.ts";
import { Bus, type MmioDevice, type Window } from "./bus.ts";
import { Console } from "./console.ts";
import { DmaClient } from "./dma-client.ts";
import { FrameClient } from "./frame-client.ts";
import { GoldfishRtc } from "./goldfish-rtc.ts";
import { GuestClock } from "./guest-clock.ts";
import { InterruptOutput } from "./interrupt-output.ts";
import { Plic } from "./plic.ts";
import { seededBytes } from "./seeded-random.ts";
import { TestFinisher } from "./test-finisher.ts";
import { Uart16550 } from "./uart16550.ts";
import { VirtioBlk } from "./virtio/blk.ts";
import { VirtioConsole } from "./virtio/console.ts";
import { VirtioNet } from "./virtio/net.ts";
import { VirtioRng } from "./virtio/rng.ts";
import { decodeSavedBoard, encodeSavedBoard } from "./saved-board.ts";

export interface DevicePeers {
  readonly memory: MemoryPort;
  readonly images: ImagePort;
  readonly network: NetworkPort;
  readonly cpu: CpuPort;
}

export interface BoardEnvironment {
  readonly peers: DevicePeers;
  readonly clock: { now(): number; after(ms: number, run: () => void): () => void };
  /** Calls back when the rest of the process has had its turn. */
  afterTurn(run: () => void): void;
  random(byteLength: number): Uint8Array;
  log: { debug(fields: object, message: string): void; warn(fields: object, message: string): void };
  /** A fact about the board, "board-powered-off" ... */
  fact(machine: string, fact: string, data: Record<string, unknown>): void;
  readonly consoleRingBytes: number;
  readonly consoleInputBytes: number;
}

export type BoardState = "on" | "powered-off" | "reset" | "failed" | "destroyed";

interface VirtioSlot {
  readonly id: string;
  readonly deviceId: number;
  /** What the guest's driver has seen of the device and relies on. */
  readonly shape: { readonly mac: Uint8Array; readonly sectors: bigint; readonly readOnly: boolean };
  readonly transport: MmioTransport;
  readonly counters: () => Record<string, number>;
}

/** How long requests that are in work may take when the board is paused, and how often that is looked at. */
const PAUSE_TIMEOUT_MS = 10_000;
const PAUSE_POLL_MS = 1;
/** How long a deterministic hart waits for its devices: less than PauseHarts does for the hart. */
const SETTLE_TIMEOUT_MS = 5000;
const NEVER_AGAIN = 0xffff_ffff_ffff_ffffn;

/** Lines that one guest can put into the log by breaking its devices. */
const MAX_BROKEN_LOGGED = 16;

/** One machine's board: wires the devices to the bus, the PLIC, the consoles and their backends. */
export class Board {
  readonly plan: BoardPlan;
  readonly deviceTree: Uint8Array;
  readonly bus: Bus;
  readonly serial: Console;
  readonly #environment: BoardEnvironment;
  readonly #consoles = new Map<string, Console>();
  readonly #plic: Plic;
  readonly #uart: Uart16550;
  readonly #rtc: GoldfishRtc;
  /** Of a deterministic board. */
  readonly #guestClock: GuestClock | undefined;
  readonly #random: (byteLength: number) => Uint8Array;
  readonly #virtio: VirtioSlot[] = [];
  readonly #interrupts: InterruptOutput;
  readonly #dma: DmaClient;
  readonly #disks: BlockClient[];
  readonly #closers: (() => void)[] = [];
  readonly #watchers = new Set<Sink<BoardEvent>>();
  readonly #unmappedPages = new Set<bigint>();
  #brokenLogged = 0;
  #paused = false;
  #event: BoardEvent;

  /** Sets grants, opens the streams and the disks, then builds. Rejects with the first backend's reason, leaving nothing open. */
  static async create(plan: BoardPlan, environment: BoardEnvironment): Promise<Board> {
    const { memory, images } = environment.peers;
    const { machine } = plan;
    let board: Board | undefined;
    let lostEarly: string | undefined;
    const lost = (reason: string) => {
      if (board) board.fail(reason);
      else lostEarly ??= reason;
    };
    const ram = { range: { base: plan.ramBase, bytes: plan.ramBytes }, write: true };
    await Promise.all(plan.devices.map(({ id }) => memory.setGrants({ machine, device: id, grants: [ram] })));
    const disks = new Map<string, BlockClient>();
    try {
      for (const device of plan.devices) {
        if (device.kind !== "blk") continue;
        disks.set(device.id, await BlockClient.open(machine, device.disk, device.readOnly, images, lost));
      }
      board = new Board(plan, environment, disks, lost);
      if (lostEarly !== undefined) throw new ContractError("unavailable", `create board ${machine}: ${lostEarly}`);
      return board;
    } catch (error) {
      if (board) board.destroy();
      else for (const disk of disks.values()) disk.close();
      throw error;
    }
  }

  private constructor(
    plan: BoardPlan,
    environment: BoardEnvironment,
    disks: ReadonlyMap<string, BlockClient>,
    lost: (reason: string) => void,
  ) {
    this.plan = plan;
    this.#disks = [...disks.values()];
    this.#environment = environment;
    this.#event = { machine: plan.machine, state: "on", exitCode: 0, reason: "" };
    this.#interrupts = new InterruptOutput(plan.machine, plan.harts, environment.peers.cpu, lost, plan.deterministic);
    this.#plic = new Plic(ADDRESS_MAP.plic.sources, plan.harts, (hart, mode, level) => this.#interrupts.set(hart, mode, level));
    this.#dma = new DmaClient({ machine: plan.machine, memory: environment.peers.memory, lost, afterTurn: environment.afterTurn, ...(plan.deterministic ? { mostAtOnce: Infinity } : {}) });
    this.serial = this.#console("serial0");
    this.#uart = new Uart16550(this.serial, (level) => this.#plic.setLevel(ADDRESS_MAP.uart.irq, level));
    this.#guestClock = plan.deterministic ? new GuestClock() : undefined;
    this.#random = plan.deterministic ? seededBytes() : environment.random;
    this.#rtc = new GoldfishRtc(this.#guestClock ?? environment.clock, (level) => this.#plic.setLevel(ADDRESS_MAP.rtc.irq, level));
    const finisher = new TestFinisher({
      powerOff: (exitCode, reason) => this.powerOff(exitCode, reason),
      reset: (reason) => this.requestReset(reason),
    });

    const { testFinisher, rtc, plic, uart, virtio } = ADDRESS_MAP;
    const wired: { window: Window; target: MmioDevice }[] = [
      { window: at(testFinisher, "test", "sifive,test0"), target: finisher },
      { window: at(rtc, "rtc", "google,goldfish-rtc"), target: this.#rtc },
      { window: at(plic, "plic", "sifive,plic-1.0.0"), target: this.#plic },
      { window: at(uart, "serial0", "ns16550a"), target: this.#uart },
    ];
    for (const [slot, device] of plan.devices.entries()) {
      const irq = virtio.firstIrq + slot;
      const window = { base: virtio.base + BigInt(slot) * virtio.bytes, bytes: virtio.bytes, irq };
      const made = this.#virtioDevice(device, disks, lost);
      const transport = new MmioTransport({
        device: made.model,
        dma: this.#dma.device(device.id),
        interrupt: (level) => this.#plic.setLevel(irq, level),
        broken: (reason) => this.#broken(device.id, reason),
      });
      const shape = {
        mac: device.kind === "net" ? device.mac : NOTHING,
        sectors: device.kind === "blk" ? disks.get(device.id)!.sectors : 0n,
        readOnly: device.kind === "blk" && device.readOnly,
      };
      this.#virtio.push({ id: device.id, deviceId: made.model.deviceId, shape, transport, counters: made.counters });
      wired.push({ window: at(window, device.id, "virtio,mmio"), target: transport });
    }
    this.bus = new Bus(wired, (address, write) => this.#unmapped(address, write));
    this.deviceTree = writeFdt(
      deviceTree({
        harts: plan.harts,
        ramBase: plan.ramBase,
        ramBytes: plan.ramBytes,
        isa: plan.isa,
        mmu: plan.mmu,
        bootArguments: plan.bootArguments,
        ...(plan.initrd ? { initrd: plan.initrd } : {}),
        virtioSlots: plan.devices.map((_, slot) => slot),
        rngSeed: this.#random(32),
      }),
    );
  }

  console(name: string): Console | undefined {
    return this.#consoles.get(name);
  }

  get state(): BoardState {
    return this.#event.state as BoardState;
  }

  /** A hart has opened its exits: from now on there is somebody to interrupt. */
  hartsAttached(): void {
    this.#interrupts.open();
  }

  /** The guest's clock has come to `ticks`. */
  guestTime(ticks: bigint): void {
    this.#guestClock?.advance(Number(ticks));
  }
  /**
   * Calls back when the devices have done all that they can do without anything from outside, and the harts can see it: at once when they
   * have. With the guest time, in ticks, at which the board has something to do by itself; 0 = never, NEVER_AGAIN: it is not on any more.
   */
  settle(done: (next: bigint) => void): void {
    const { clock, afterTurn, log } = this.#environment;
    const end = clock.now() + SETTLE_TIMEOUT_MS;
    const look = (): void => {
      const settled = this.#interrupts.settled && this.#virtio.every(({ transport }) => transport.quiet);
      if (this.state !== "on") return done(NEVER_AGAIN);
      if (settled) return done(BigInt(this.#guestClock?.next ?? 0));
      if (clock.now() < end) return afterTurn(look);
      log.warn({ machine: this.plan.machine }, `devices still work after ${SETTLE_TIMEOUT_MS} ms; this run cannot be repeated exactly`);
      done(BigInt(this.#guestClock?.next ?? 0));
    };
    look();
  }

  powerOff(exitCode: number, reason: string): void {
    if (this.state === "on") this.#enter("powered-off", exitCode, reason, "board-powered-off");
  }

  /** The guest wants to start again; what happens then is decided by whoever watches the board. */
  requestReset(reason: string): void {
    if (this.state === "on") this.#enter("reset", 0, reason, "board-reset");
  }

  fail(reason: string): void {
    if (this.state !== "on" && this.state !== "reset") return;
    this.#environment.log.warn({ machine: this.plan.machine, reason }, "board failed");
    this.#enter("failed", 0, reason, "board-failed");
  }

  /** Devices to their power-on state; a failed board has lost its backends and cannot come back. */
  reset(): void {
    if (this.state === "failed")
      throw new ContractError("precondition", `reset board ${this.plan.machine}: it failed (${this.#event.reason}); destroy it and create a new one`);
    this.#paused = false;
    this.#uart.hold(false);
    this.#uart.reset();
    this.#rtc.reset();
    for (const { transport } of this.#virtio) transport.reset();
    this.#plic.reset();
    this.#enter("on", 0, "", "board-restarted");
  }

  /**
   * Nothing from outside reaches the guest any more; what it has begun comes to its end, disks are flushed. The harts stand still.
   * Idempotent.
   */
  async pause(): Promise<void> {
    const { clock } = this.#environment;
    this.#mustBeOn("pause");
    this.#paused = true;
    this.#uart.hold(true);
    for (const { transport } of this.#virtio) transport.hold();
    const end = clock.now() + PAUSE_TIMEOUT_MS;
    try {
      for (;;) {
        this.#mustBeOn("pause");
        const busy = this.#virtio.find(({ transport }) => !transport.quiet);
        if (!busy) break;
        if (clock.now() > end) throw new ContractError("timeout", `pause board ${this.plan.machine}: ${busy.id} still works on requests after ${PAUSE_TIMEOUT_MS} ms; are the harts paused?`);
        await new Promise<void>((resolve) => void clock.after(PAUSE_POLL_MS, resolve));
      }
      for (const disk of this.#disks) {
        if (!(await disk.flush()).ok) throw new ContractError("unavailable", `pause board ${this.plan.machine}: a disk cannot be flushed`);
      }
    } catch (error) {
      this.resume();
      throw error;
    }
  }
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    for (const { transport } of this.#virtio) transport.release();
    this.#uart.hold(false);
  }

  save(): Uint8Array {
    this.#mustBeOn("save");
    if (!this.#paused) throw new ContractError("precondition", `save board ${this.plan.machine}: it is not paused; pause the harts, then the board`);
    const { harts, ramBase, ramBytes } = this.plan;
    return encodeSavedBoard({
      harts, ramBase, ramBytes,
      plic: this.#plic.save(),
      uart: this.#uart.save(),
      rtc: this.#rtc.save(),
      consoles: [...this.#consoles.values()].map((console) => ({ name: console.name, ...console.save() })),
      virtio: this.#virtio.map(({ id, deviceId, shape, transport }) => {
        const { queues, ...registers } = transport.save();
        return { id, deviceId, ...shape, ...registers, queues: queues.map((queue) => ({ ...queue, heads: [...queue.heads] })) };
      }),
    });
  }
  /** Into a board that no guest has used. What does not fit: `invalid`, and the board is at power-on. */
  restore(blob: Uint8Array): void {
    this.#mustBeOn("restore");
    const saved = decodeSavedBoard(blob, this.plan, this.#virtio, [...this.#consoles.keys()]);
    const refuse = (what: string) => {
      this.reset();
      return new ContractError("invalid", `restore board ${this.plan.machine}: ${what}`);
    };
    const problem = this.#plic.restore(saved.plic);
    if (problem !== undefined) throw refuse(problem);
    for (const { name, input, output } of saved.consoles) this.#consoles.get(name)!.restore({ input, output });
    for (const [slot, { id, transport }] of this.#virtio.entries()) {
      const wrong = transport.restore(saved.virtio[slot]!);
      if (wrong !== undefined) throw refuse(`${id}: ${wrong}`);
    }
    this.#uart.restore(saved.uart);
    this.#rtc.restore(saved.rtc);
    // A guest that sleeps makes no exit: without the wires nothing would wake it.
    this.#interrupts.open();
  }
  #mustBeOn(operation: string): void {
    if (this.state !== "on") throw new ContractError("precondition", `${operation} board ${this.plan.machine}: it is ${this.state}${this.#event.reason ? ` (${this.#event.reason})` : ""}`);
  }

  watch(out: Sink<BoardEvent>): void {
    this.#watchers.add(out);
    out.onClose(() => void this.#watchers.delete(out));
    out.send(this.#event);
  }

  counters(): Map<string, bigint> {
    const all: Record<string, number> = {
      ...this.bus.counters(),
      "plic.claim": this.#plic.claims,
      "plic.complete": this.#plic.completions,
      "plic.signals": this.#interrupts.signals,
      "dma.requests": this.#dma.requests,
      "dma.bytes": this.#dma.bytes,
      "dma.faults": this.#dma.faults,
    };
    for (const console of this.#consoles.values()) Object.assign(all, console.counters());
    for (const { id, transport, counters } of this.#virtio) {
      Object.assign(all, transport.counters(id));
      for (const [name, count] of Object.entries(counters())) all[`${id}.${name}`] = count;
    }
    return new Map(Object.entries(all).map(([name, count]) => [name, BigInt(count)]));
  }

  /** Idempotent. Streams to the backends end; watchers and console clients see the end. */
  destroy(): void {
    if (this.state === "destroyed") return;
    this.#interrupts.close();
    for (const { transport } of this.#virtio) transport.reset();
    this.#rtc.reset();
    this.#dma.close();
    for (const close of this.#closers) close();
    for (const console of this.#consoles.values()) console.close();
    this.#enter("destroyed", 0, "", "board-destroyed");
    for (const watcher of this.#watchers) watcher.close();
    this.#watchers.clear();
  }

  #enter(state: BoardState, exitCode: number, reason: string, fact: string): void {
    this.#event = { machine: this.plan.machine, state, exitCode, reason };
    // What the guest printed last comes before the news that it ended.
    for (const console of this.#consoles.values()) console.flush();
    this.#environment.fact(this.plan.machine, fact, { exitCode, reason });
    for (const watcher of this.#watchers) watcher.send(this.#event);
  }

  #console(name: string): Console {
    const { clock, consoleRingBytes, consoleInputBytes } = this.#environment;
    const console = new Console({
      machine: this.plan.machine,
      name,
      ringBytes: consoleRingBytes,
      inputBytes: consoleInputBytes,
      after: (ms, run) => clock.after(ms, run),
    });
    this.#consoles.set(name, console);
    return console;
  }

  #virtioDevice(
    device: DevicePlan,
    disks: ReadonlyMap<string, BlockClient>,
    lost: (reason: string) => void,
  ): { model: VirtioDevice; counters: () => Record<string, number> } {
    const dma = this.#dma.device(device.id);
    switch (device.kind) {
      case "blk": {
        const backend = disks.get(device.id)!;
        this.#closers.push(() => backend.close());
        const model = new VirtioBlk({ backend, readOnly: device.readOnly, id: device.disk, dma, oneByOne: this.plan.deterministic });
        return { model, counters: () => ({ ...model.operations }) };
      }
      case "net": {
        const frames = new FrameClient({ machine: this.plan.machine, port: device.port, network: this.#environment.peers.network, clock: this.#environment.clock, lost });
        this.#closers.push(() => frames.close());
        const model = new VirtioNet(device.mac, frames, dma);
        return {
          model,
          counters: () => ({
            "rx-frames": frames.receivedFrames,
            "tx-frames": frames.sentFrames,
            "rx-overrun": frames.overrunFrames,
            "rx-dropped": model.dropped,
            "tx-malformed": model.malformed,
          }),
        };
      }
      case "console":
        return { model: new VirtioConsole(this.#console(device.console), dma), counters: () => ({}) };
      case "rng":
        return { model: new VirtioRng(this.#random), counters: () => ({}) };
    }
  }

  /** A guest can break its devices as often as it likes; the counter `needs-reset` goes on where the log stops. */
  #broken(device: string, reason: string): void {
    if (this.#brokenLogged >= MAX_BROKEN_LOGGED) return;
    this.#brokenLogged++;
    const last = this.#brokenLogged === MAX_BROKEN_LOGGED ? "; further ones of this board are only counted" : "";
    this.#environment.log.warn({ machine: this.plan.machine, device, reason }, `virtio device needs a reset${last}`);
  }

  /** Once per page: a guest that probes a hole is told by the access fault, the log need not repeat it. */
  #unmapped(address: bigint, write: boolean): void {
    const page = address >> 12n;
    if (this.#unmappedPages.has(page) || this.#unmappedPages.size >= 64) return;
    this.#unmappedPages.add(page);
    this.#environment.log.debug(
      { machine: this.plan.machine, address: `0x${address.toString(16)}`, write },
      "access to an address that nothing decodes",
    );
  }
}

const NOTHING = new Uint8Array(0);

function at(window: { base: bigint; bytes: bigint; irq?: number }, device: string, compatible: string): Window {
  return { base: window.base, byteLength: window.bytes, device, compatible, interrupt: window.irq ?? 0 };
}
