import type { Channel } from "@polyvisor/contracts";
import { DmaStatus, type DmaRequest, type DmaResponse, type MemoryPort } from "@polyvisor/contracts/memory";
import { gatherBytes } from "@polyvisor/guest-memory";
import { dmaRead, dmaWrite, type Dma, type DmaResult, type DmaSegment, type Soon } from "@polyvisor/virtio";

/** What one message carries: 1 MiB, and what goes around it. Keeps gRPC messages well below their limit and others' latency short. */
const MAX_REQUEST_BYTES = 1024 * 1024 + 64 * 1024;
const MAX_REQUEST_SEGMENTS = 1024;
/** Answers that are handed on at once in one turn of the event loop: a guest that keeps its rings full must not hold the loop. */
const MAX_AT_ONCE = 512;

const FAILED: DmaResult = { status: "failed", data: [] };
const FAULT: DmaResult = { status: "fault", data: [] };

export interface DmaClientOptions {
  readonly machine: string;
  readonly memory: MemoryPort;
  readonly lost: (reason: string) => void;
  readonly afterTurn: (run: () => void) => void;
  readonly mostAtOnce?: number;
}

/** The board's DMA stream to the memory-manager: pipelined, answers matched by id. */
export class DmaClient {
  readonly #machine: string;
  readonly #memory: MemoryPort;
  readonly #lost: (reason: string) => void;
  readonly #afterTurn: (run: () => void) => void;
  readonly #mostAtOnce: number;
  /** Opened with the first device that wants DMA. */
  #channel: Channel<DmaRequest, DmaResponse> | undefined;
  readonly #waiting = new Map<bigint, (result: DmaResult) => void>();
  #nextId = 1n;
  #closed = false;
  #atOnce = 0;
  requests = 0;
  bytes = 0;
  faults = 0;

  constructor(options: DmaClientOptions) {
    this.#machine = options.machine;
    this.#memory = options.memory;
    this.#lost = options.lost;
    this.#afterTurn = options.afterTurn;
    this.#mostAtOnce = options.mostAtOnce ?? MAX_AT_ONCE;
  }

  /** DMA in the name of one device, which has grants of its own. */
  device(device: string): Dma {
    if (!this.#channel) this.#open();
    return { transfer: (segments) => this.#transfer(device, segments) };
  }

  close(): void {
    this.#closed = true;
    this.#channel?.close();
  }

  #open(): void {
    this.#channel = this.#memory.dma();
    this.#channel.onMessage((response) => this.#answered(response));
    this.#channel.onClose((error) => {
      const deliberate = this.#closed;
      this.#closed = true;
      for (const answer of this.#waiting.values()) answer(FAILED);
      this.#waiting.clear();
      if (!deliberate) this.#lost(`DMA stream to the memory-manager ended: ${error?.message ?? "closed by the peer"}`);
    });
  }

  #transfer(device: string, segments: readonly DmaSegment[]): Soon<DmaResult> {
    let byteLength = 0;
    for (const segment of segments) byteLength += segment.readLength + segment.writeData.length;
    this.bytes += byteLength;
    if (byteLength <= MAX_REQUEST_BYTES && segments.length <= MAX_REQUEST_SEGMENTS) return this.#send(device, segments);
    return this.#transferInParts(device, segments);
  }

  /** One part after the other, so that what announces the data is written after it, and not at all when it fails. */
  async #transferInParts(device: string, segments: readonly DmaSegment[]): Promise<DmaResult> {
    const data: Uint8Array[] = [];
    for (const part of parts(segments)) {
      const result = await this.#send(device, part.map(({ segment }) => segment));
      if (result.status !== "ok") return result;
      let index = 0;
      for (const { segment, continues } of part) {
        if (segment.readLength === 0) continue;
        const bytes = result.data[index++]!;
        if (continues) data.push(gatherBytes([data.pop()!, bytes]));
        else data.push(bytes);
      }
    }
    return { status: "ok", data };
  }

  #send(device: string, segments: readonly DmaSegment[]): Soon<DmaResult> {
    if (this.#closed) return FAILED;
    this.requests++;
    const id = this.#nextId++;
    const expected = segments.reduce((count, segment) => count + (segment.readLength > 0 ? 1 : 0), 0);
    let answered: DmaResult | undefined;
    let later: ((result: DmaResult) => void) | undefined;
    this.#waiting.set(id, (result) => {
      const checked = result.status === "ok" && result.data.length !== expected ? FAILED : result;
      if (later) later(checked);
      else answered = checked;
    });
    this.#channel!.send({ machine: this.#machine, device, id, segments: segments as DmaSegment[] });
    if (answered && this.#mayAnswerAtOnce()) return answered;
    const result = answered;
    return new Promise((resolve) => {
      if (result) this.#afterTurn(() => resolve(result));
      else later = resolve;
    });
  }

  #mayAnswerAtOnce(): boolean {
    if (this.#atOnce === 0) this.#afterTurn(() => (this.#atOnce = 0));
    return ++this.#atOnce <= this.#mostAtOnce;
  }

  #answered(response: DmaResponse): void {
    const answer = this.#waiting.get(response.id);
    if (!answer) return; // answered twice, as a mediation rule may make it
    this.#waiting.delete(response.id);
    if (response.status === DmaStatus.OK) return answer({ status: "ok", data: response.data });
    this.faults++;
    answer(response.status === DmaStatus.OUT_OF_RANGE || response.status === DmaStatus.DENIED ? FAULT : FAILED);
  }
}

/** Cuts a list so that each part fits a message; `continues`: the segment goes on where the part before ended. */
function* parts(segments: readonly DmaSegment[]): Generator<{ segment: DmaSegment; continues: boolean }[]> {
  let part: { segment: DmaSegment; continues: boolean }[] = [];
  let room = MAX_REQUEST_BYTES;
  for (const segment of segments) {
    const byteLength = segment.readLength || segment.writeData.length;
    for (let done = 0; done < byteLength; ) {
      const length = Math.min(byteLength - done, room);
      const address = segment.address + BigInt(done);
      part.push({
        segment:
          segment.readLength > 0 ? dmaRead(address, length) : dmaWrite(address, segment.writeData.subarray(done, done + length)),
        continues: done > 0,
      });
      done += length;
      room -= length;
      if (room === 0 || part.length === MAX_REQUEST_SEGMENTS) {
        yield part;
        part = [];
        room = MAX_REQUEST_BYTES;
      }
    }
  }
  if (part.length > 0) yield part;
}
