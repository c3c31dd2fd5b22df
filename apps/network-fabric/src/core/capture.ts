import { asContractError, ContractError, type Sink } from "@polyvisor/contracts";
import type { CaptureChunk, CaptureRequest, Frame } from "@polyvisor/contracts/network";
import type { Clock } from "@polyvisor/service-kit";
import { completeFrame, pcapngInterface, pcapngPacket, pcapngSection, pcapngStatistics } from "@polyvisor/wire";
import type { FramePort } from "./frame-port.ts";
import type { AttachedNetwork } from "./networks.ts";

export interface CaptureSources {
  readonly clock: Clock;
  network(name: string): AttachedNetwork;
  port(id: string): FramePort;
}

/** Bytes in one message at most, and the time until a part of one goes. */
const CHUNK_BYTES = 64 * 1024;
const CHUNK_MS = 50;

/** A capture as the contract streams it: a pcapng file that ends when the caller does. */
export function serveCapture(request: CaptureRequest, out: Sink<CaptureChunk>, sources: CaptureSources): void {
  try {
    if (!request.network === !request.port) throw new ContractError("invalid", "capture: say either a network or a port");
    const writer = new CaptureWriter(out, request.snapBytes, sources.clock);
    if (request.port) {
      const port = sources.port(request.port);
      writer.interface(port.info.id);
      const observer = (direction: "from-guest" | "to-guest", frame: Frame): void => writer.frame(port.info.id, direction === "from-guest" ? "in" : "out", frame);
      port.observers.add(observer);
      out.onClose(() => void port.observers.delete(observer));
    } else {
      const network = sources.network(request.network);
      for (const { info } of network.ports) writer.interface(info.id);
      const observer = (source: string, direction: "in" | "out", frame: Frame): void => writer.frame(source, direction, frame);
      network.observers.add(observer);
      out.onClose(() => void network.observers.delete(observer));
    }
    writer.flush();
  } catch (error) {
    out.close(asContractError(error));
  }
}

/** Gathers blocks into messages. While the reader is slow, frames are counted instead, and the file says so. */
class CaptureWriter {
  readonly #out: Sink<CaptureChunk>;
  readonly #snapBytes: number;
  readonly #clock: Clock;
  readonly #interfaces = new Map<string, { number: number; received: number; dropped: number; reported: number }>();
  readonly #startUnixNanoseconds: bigint;
  readonly #startedAt: number;
  #blocks: Uint8Array[];
  #bytes = 0;
  #slow = false;
  #cancelTimer: (() => void) | undefined;

  constructor(out: Sink<CaptureChunk>, snapBytes: number, clock: Clock) {
    this.#out = out;
    this.#snapBytes = snapBytes;
    this.#clock = clock;
    this.#startUnixNanoseconds = BigInt(clock.now()) * 1_000_000n;
    this.#startedAt = clock.monotonic();
    this.#blocks = [pcapngSection("Polyvisor network-fabric")];
    out.onDrain(() => {
      this.#slow = false;
      this.#reportDrops();
    });
    out.onClose(() => this.#cancelTimer?.());
  }
  interface(name: string) {
    let entry = this.#interfaces.get(name);
    if (!entry) {
      entry = { number: this.#interfaces.size, received: 0, dropped: 0, reported: 0 };
      this.#interfaces.set(name, entry);
      this.#blocks.push(pcapngInterface(name, this.#snapBytes));
    }
    return entry;
  }
  /** What is to be cut into segments or lacks its checksum is written as it would be on a wire. */
  frame(source: string, direction: "in" | "out", frame: Frame): void {
    const entry = this.interface(source);
    entry.received++;
    if (this.#slow) return void entry.dropped++;
    const unixNanoseconds = this.#nanoseconds();
    for (const whole of completeFrame(frame.data, frame.offload) ?? []) {
      const data = this.#snapBytes > 0 ? whole.subarray(0, this.#snapBytes) : whole;
      const block = pcapngPacket({ interface: entry.number, unixNanoseconds, data, originalLength: whole.length, direction });
      this.#blocks.push(block);
      this.#bytes += block.length;
    }
    if (this.#bytes >= CHUNK_BYTES) this.flush();
    else this.#cancelTimer ??= this.#clock.after(CHUNK_MS, () => this.flush());
  }
  flush(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (this.#blocks.length === 0) return;
    const pcapng = concat(this.#blocks);
    this.#blocks = [];
    this.#bytes = 0;
    if (!this.#out.send({ pcapng })) this.#slow = true;
  }

  #reportDrops(): void {
    for (const entry of this.#interfaces.values()) {
      if (entry.dropped === entry.reported) continue;
      entry.reported = entry.dropped;
      this.#blocks.push(pcapngStatistics(entry.number, this.#nanoseconds(), entry));
    }
    this.flush();
  }
  /** The wall clock at the start and the monotonic one since: fine, and never backwards. */
  #nanoseconds(): bigint {
    return this.#startUnixNanoseconds + BigInt(Math.floor((this.#clock.monotonic() - this.#startedAt) * 1_000_000));
  }
}

function concat(blocks: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(blocks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const each of blocks) {
    bytes.set(each, at);
    at += each.length;
  }
  return bytes;
}
