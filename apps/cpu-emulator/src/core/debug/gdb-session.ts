import { Breakpoints } from "./breakpoints.ts";
import { DebugKind } from "./debug-table.ts";
import { GuestView } from "./guest-view.ts";
import { ALIAS, type DebugHit } from "./hart-debug.ts";
import { bytesOfHex, hexOfBytes, hexOfRegister, latin1, numberOfHex, rangeOfHex, registerOfHex } from "./hex.ts";
import { monitorCommand, type MonitorState } from "./monitor.ts";
import { GENERAL_REGISTERS, readRegister, targetDescription, writeRegister } from "./registers.ts";
import type { DebugTarget } from "./target.ts";

/**
 * GDB's remote serial protocol (GDB manual, appendix E), one packet a message: framing, checksums and acknowledgements are
 * the transport's business (`hv gdb`). All-stop: when one hart stops, all do; harts are threads 1, 2, ... A packet that is
 * not understood gets the empty answer, a malformed one an error; neither changes anything.
 */
const PACKET_BYTES = 0x4000;
const MOST_MEMORY = PACKET_BYTES / 2 - 16;
const SIGINT = 2;
const SIGTRAP = 5;
const ERROR = { MALFORMED: "E16", FAULT: "E0e", FULL: "E1c" } as const; // EINVAL, EFAULT, ENOSPC
const INTERRUPT = 0x03;
/** Z and z types. */
const KINDS: Readonly<Record<string, DebugKind>> = {
  "0": DebugKind.SOFT, "1": DebugKind.HARD, "2": DebugKind.WATCH_WRITE, "3": DebugKind.WATCH_READ, "4": DebugKind.WATCH_ACCESS,
};
const STOP_FIELD: Readonly<Record<number, string>> = {
  [DebugKind.SOFT]: "swbreak:", [DebugKind.HARD]: "hwbreak:", [DebugKind.WATCH_WRITE]: "watch:", [DebugKind.WATCH_READ]: "rwatch:",
  [DebugKind.WATCH_ACCESS]: "awatch:",
};

export class GdbSession {
  readonly #target: DebugTarget;
  readonly #send: (packet: Uint8Array) => void;
  readonly #left: () => void;
  readonly #view: GuestView;
  readonly #breakpoints: Breakpoints;
  readonly #monitor: MonitorState = { physical: false, stepInterrupts: false };
  #queue: Promise<void> = Promise.resolve();
  #attached = false;
  #closed = false;
  /** The guest was running when the debugger came, or has been continued since: it goes on when the debugger leaves. */
  #resumeAtEnd = false;
  /** The debugger waits for a stop. */
  #waiting = false;
  #hitQueued = false;
  /** Harts for g, m ... and for c, s. */
  #hart = 0;
  #runHart = 0;

  /** `left`: the debugger is gone, another may come. */
  constructor(target: DebugTarget, send: (packet: Uint8Array) => void, left: () => void) {
    this.#left = left;
    this.#target = target;
    this.#send = send;
    this.#view = new GuestView(target);
    this.#breakpoints = new Breakpoints(target, this.#view);
  }

  /** One packet of the debugger. Packets are worked off in order, an interrupt at once. */
  receive(packet: Uint8Array): void {
    if (packet.length === 1 && packet[0] === INTERRUPT) return this.#enqueue(() => this.#interrupted());
    this.#enqueue(async () => {
      await this.#attach();
      const answer = await this.#answer(packet);
      if (answer !== undefined) this.#reply(answer);
    });
  }
  /** A hart has stopped by itself. */
  stopped(): void {
    if (this.#hitQueued) return;
    this.#hitQueued = true;
    this.#enqueue(() => {
      this.#hitQueued = false;
      return this.#reportHit();
    });
  }
  /** The harts are gone. */
  ended(failed: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#left();
    if (this.#waiting) this.#reply(failed ? "X06" : "W00");
  }
  /** The debugger is gone, or detaches: nothing of it stays, and the guest goes on. */
  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#queue = this.#queue.then(() => this.#leave()).catch(() => {}).then(this.#left); // it fails when the machine is gone
    }
    return this.#queue;
  }

  #enqueue(work: () => Promise<void>): void {
    this.#queue = this.#queue.then(() => (this.#closed ? undefined : work())).catch(() => {
      // The machine went away under the command.
      if (!this.#closed) this.#reply(ERROR.FAULT);
    });
  }
  #reply(text: string): void {
    this.#send(latin1.bytes(text));
  }

  async #attach(): Promise<void> {
    if (this.#attached) return;
    this.#attached = true;
    this.#resumeAtEnd = this.#target.running();
    await this.#target.pause();
  }
  async #leave(): Promise<void> {
    if (!this.#attached) return;
    this.#attached = false;
    await this.#target.pause();
    await this.#breakpoints.clear();
    if (this.#resumeAtEnd) await this.#target.run();
  }

  async #answer(packet: Uint8Array): Promise<string | undefined> {
    const text = latin1.text(packet);
    const rest = text.slice(1);
    const hart = this.#target.harts[this.#hart]!;
    switch (text[0]) {
      case "?": return this.#stopReply(SIGTRAP, this.#hart);
      case "g": return Array.from({ length: GENERAL_REGISTERS }, (_, n) => hexOfRegister(readRegister(hart, n)!)).join("");
      case "G": return this.#writeGeneral(rest);
      case "p": return this.#readOne(rest);
      case "P": return this.#writeOne(rest);
      case "m": return this.#readMemory(rest);
      case "M": return this.#writeMemory(rest.slice(0, rest.indexOf(":")), bytesOfHex(rest.slice(rest.indexOf(":") + 1)), rest.includes(":"));
      case "X": return this.#writeMemory(rest.slice(0, rest.indexOf(":")), packet.subarray(packet.indexOf(0x3a) + 1), rest.includes(":"));
      case "c": case "C": case "s": case "S": return this.#resumeOld(text);
      case "v": return this.#verbose(text);
      case "Z": case "z": return this.#breakpoint(text);
      case "H": return this.#selectThread(text);
      case "T": return this.#threadNumber(rest) === undefined ? ERROR.MALFORMED : "OK";
      case "q": case "Q": return this.#query(text);
      case "D": case "k":
        await this.#leave();
        return text[0] === "D" ? "OK" : undefined; // kill asks for no answer; the guest is hv's to stop
      default: return "";
    }
  }

  // --- registers and memory -------------------------------------------------------------------------------------

  #writeGeneral(text: string): string {
    const values = Array.from({ length: GENERAL_REGISTERS }, (_, n) => registerOfHex(text.slice(n * 16, n * 16 + 16)));
    if (text.length !== GENERAL_REGISTERS * 16 || values.includes(undefined)) return ERROR.MALFORMED;
    values.forEach((value, n) => writeRegister(this.#target.harts[this.#hart]!, n, value!));
    return "OK";
  }
  #readOne(text: string): string {
    const number = numberOfHex(text);
    const value = number === undefined ? undefined : readRegister(this.#target.harts[this.#hart]!, Number(number));
    return value === undefined ? ERROR.MALFORMED : hexOfRegister(value);
  }
  #writeOne(text: string): string {
    const [number, value] = [numberOfHex(text.split("=")[0]), registerOfHex(text.split("=")[1] ?? "")];
    if (number === undefined || value === undefined) return ERROR.MALFORMED;
    return writeRegister(this.#target.harts[this.#hart]!, Number(number), value) ? "OK" : ERROR.MALFORMED;
  }
  async #readMemory(text: string): Promise<string> {
    const range = rangeOfHex(text, MOST_MEMORY);
    if (!range) return ERROR.MALFORMED;
    const hart = this.#memoryHart();
    const data = await this.#view.read(hart, range.address, range.length);
    if (data.length === 0 && range.length > 0) return ERROR.FAULT;
    await this.#breakpoints.conceal(hart, range.address, data);
    return hexOfBytes(data);
  }
  async #writeMemory(text: string, data: Uint8Array | undefined, complete: boolean): Promise<string> {
    const range = rangeOfHex(text, PACKET_BYTES);
    if (!complete || !range || !data || data.length !== range.length) return ERROR.MALFORMED;
    const hart = this.#memoryHart();
    return (await this.#view.write(hart, range.address, await this.#breakpoints.reveal(hart, range.address, data))) ? "OK" : ERROR.FAULT;
  }
  #memoryHart() {
    return this.#monitor.physical ? undefined : this.#target.harts[this.#hart]!;
  }

  async #breakpoint(text: string): Promise<string> {
    const [type, first, second] = text.slice(1).split(";")[0]!.split(",");
    const [kind, address, length] = [KINDS[type ?? ""], numberOfHex(first), numberOfHex(second)];
    if (kind === undefined) return "";
    const code = kind <= DebugKind.HARD;
    if (address === undefined || length === undefined || (code ? length !== 2n && length !== 4n : length < 1n || length > 4096n)) return ERROR.MALFORMED;
    if (text[0] === "z") {
      await this.#breakpoints.remove(kind, address, Number(length));
      return "OK";
    }
    const result = await this.#breakpoints.add(this.#target.harts[this.#hart]!, kind, address, Number(length));
    return result === "ok" ? "OK" : result === "full" ? ERROR.FULL : ERROR.FAULT;
  }

  // --- threads and queries --------------------------------------------------------------------------------------

  /** Index of a hart by its thread id; 0 (any) and -1 (all) give the present one. */
  #threadNumber(text: string): number | undefined {
    if (text === "-1" || text === "0") return this.#hart;
    const id = numberOfHex(text);
    return id !== undefined && id >= 1n && id <= BigInt(this.#target.harts.length) ? Number(id) - 1 : undefined;
  }
  #selectThread(text: string): string {
    const hart = this.#threadNumber(text.slice(2));
    if (hart === undefined) return ERROR.MALFORMED;
    if (text[1] === "g") this.#hart = hart;
    else if (text[1] === "c") this.#runHart = hart;
    else return ERROR.MALFORMED;
    return "OK";
  }

  async #query(text: string): Promise<string> {
    const name = /^[^:,;]*/.exec(text)![0];
    const rest = text.slice(name.length + 1);
    switch (name) {
      case "qSupported": return `PacketSize=${PACKET_BYTES.toString(16)};qXfer:features:read+;swbreak+;hwbreak+;vContSupported+;QStartNoAckMode+`;
      case "QStartNoAckMode": return "OK";
      case "qXfer": return this.#transfer(rest);
      case "qAttached": return "1";
      case "qC": return `QC${(this.#hart + 1).toString(16)}`;
      case "qSymbol": return "OK";
      case "qfThreadInfo": return `m${this.#target.harts.map((_, n) => (n + 1).toString(16)).join(",")}`;
      case "qsThreadInfo": return "l";
      case "qThreadExtraInfo": {
        const hart = this.#threadNumber(rest);
        return hart === undefined ? ERROR.MALFORMED : hexOfBytes(latin1.bytes(`hart ${hart} (${this.#target.status(hart)})`));
      }
      case "qqemu.PhyMemMode": return this.#monitor.physical ? "1" : "0";
      case "Qqemu.PhyMemMode":
        if (rest !== "0" && rest !== "1") return ERROR.MALFORMED;
        this.#monitor.physical = rest === "1";
        return "OK";
      case "qRcmd": {
        const command = bytesOfHex(rest);
        if (!command) return ERROR.MALFORMED;
        const lines = await monitorCommand(latin1.text(command), this.#target, this.#target.harts[this.#hart]!, this.#view, this.#monitor);
        for (const line of lines) this.#reply(`O${hexOfBytes(new TextEncoder().encode(`${line}\n`))}`);
        return "OK";
      }
      default: return "";
    }
  }
  #transfer(rest: string): string {
    const [object, operation, annex, place] = rest.split(":");
    if (object !== "features" || operation !== "read") return "";
    if (annex !== "target.xml") return "E00";
    const range = rangeOfHex(place ?? "", PACKET_BYTES);
    if (!range) return ERROR.MALFORMED;
    const text = targetDescription();
    const part = text.slice(Number(range.address), Number(range.address) + Math.min(range.length, PACKET_BYTES - 4));
    return (Number(range.address) + part.length < text.length ? "m" : "l") + part;
  }

  // --- running --------------------------------------------------------------------------------------------------

  async #verbose(text: string): Promise<string | undefined> {
    if (text === "vCont?") return "vCont;c;C;s;S";
    if (text.startsWith("vKill")) {
      await this.#leave();
      return "OK";
    }
    if (!text.startsWith("vCont;")) return "";
    const stepped: number[] = [];
    let othersRun = false;
    for (const action of text.slice("vCont;".length).split(";")) {
      const [verb = "", thread] = action.split(":");
      if (!/^(c|s|C[0-9a-f]{2}|S[0-9a-f]{2})$/i.test(verb)) return ERROR.MALFORMED;
      const hart = thread === undefined ? undefined : this.#threadNumber(thread);
      if (thread !== undefined && hart === undefined) return ERROR.MALFORMED;
      if (verb[0]!.toLowerCase() !== "s") othersRun ||= thread === undefined || thread === "-1";
      else if (thread === undefined || thread === "-1") stepped.push(...this.#target.harts.keys());
      else stepped.push(hart!);
    }
    return stepped.length > 0 ? this.#step(stepped, othersRun) : this.#continue();
  }
  /** c [address], C signal[;address], s, S. */
  async #resumeOld(text: string): Promise<string | undefined> {
    const place = text[0] === "C" || text[0] === "S" ? text.split(";")[1] : text.slice(1);
    if (place) {
      const address = numberOfHex(place);
      if (address === undefined) return ERROR.MALFORMED;
      writeRegister(this.#target.harts[this.#runHart]!, GENERAL_REGISTERS - 1, address);
    }
    return text[0]!.toLowerCase() === "s" ? this.#step([this.#runHart], false) : this.#continue();
  }

  async #continue(): Promise<string | undefined> {
    for (const hart of this.#target.harts.keys()) this.#target.takeHit(hart);
    this.#waiting = true;
    this.#resumeAtEnd = true;
    await this.#target.run();
    return undefined;
  }
  /** One instruction of these harts; the others, if they are to run, go as far, so that a step that waits for them ends. */
  async #step(harts: readonly number[], othersRun: boolean): Promise<string> {
    const first = harts[0]!;
    const order = othersRun ? [...harts, ...[...this.#target.harts.keys()].filter((hart) => !harts.includes(hart))] : harts;
    await this.#target.step(order, this.#monitor.stepInterrupts);
    for (const hart of order) {
      const hit = this.#target.takeHit(hart);
      if (!hit) continue;
      if (hit.kind === ALIAS) await this.#passAlias(hart, hit);
      else return this.#stopReply(SIGTRAP, hart, hit);
    }
    return this.#stopReply(SIGTRAP, first);
  }

  async #interrupted(): Promise<void> {
    if (!this.#waiting) return;
    await this.#target.pause();
    await this.#reportStop(SIGINT, this.#hart);
  }
  async #reportHit(): Promise<void> {
    if (!this.#waiting) return;
    await this.#target.pause();
    for (const hart of this.#target.harts.keys()) {
      const hit = this.#target.takeHit(hart);
      if (!hit) continue;
      if (hit.kind !== ALIAS) return this.#reportStop(SIGTRAP, hart, hit);
      await this.#passAlias(hart, hit);
    }
    await this.#target.run();
  }
  /** Another program executes the same page: it gets its instruction, and nobody stops. */
  async #passAlias(hart: number, hit: DebugHit): Promise<void> {
    const { physical } = await this.#view.walk(this.#target.harts[hart]!, hit.address);
    if (physical !== undefined) await this.#breakpoints.without(physical, () => this.#target.step([hart], false));
    this.#target.takeHit(hart);
  }
  async #reportStop(signal: number, hart: number, hit?: DebugHit): Promise<void> {
    this.#waiting = false;
    this.#reply(this.#stopReply(signal, hart, hit));
  }
  #stopReply(signal: number, hart: number, hit?: DebugHit): string {
    this.#hart = this.#runHart = hart;
    const field = hit ? STOP_FIELD[hit.kind] : undefined;
    const address = hit && hit.kind >= DebugKind.WATCH_WRITE ? hit.address.toString(16) : "";
    return `T${signal.toString(16).padStart(2, "0")}thread:${(hart + 1).toString(16)};${field ? `${field}${address};` : ""}`;
  }
}
