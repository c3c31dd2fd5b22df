import { ContractError, type Channel, type Implementation } from "@polyvisor/contracts";
import { DmaStatus, MEMORY, type DmaRequest, type DmaResponse, type Grant } from "@polyvisor/contracts/memory";

/**
 * Guest memory as a device-bus sees it: grants and the DMA stream on plain bytes, for any machine. Tests act as the
 * guest by writing `bytes`.
 */
export class FakeDmaMemory {
  readonly base: bigint;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly requests: DmaRequest[] = [];
  readonly grants = new Map<string, readonly Grant[]>();
  /** While set, requests are kept until `release()`. */
  hold = false;
  /** Answered instead of doing anything. */
  fail: DmaStatus | undefined;
  /** Makes setGrants fail. */
  refuse: ContractError | undefined;
  #held: (() => void)[] = [];
  readonly #channels = new Set<Channel<DmaResponse, DmaRequest>>();

  constructor(byteLength: number, base = 0x8000_0000n) {
    this.base = base;
    this.bytes = new Uint8Array(byteLength);
    this.view = new DataView(this.bytes.buffer);
  }

  readonly implementation: Implementation<typeof MEMORY.definition> = {
    setGrants: ({ machine, device, grants }) => {
      if (this.refuse) throw this.refuse;
      this.grants.set(`${machine}/${device}`, grants);
      return {};
    },
    dma: (channel) => {
      this.#channels.add(channel);
      channel.onClose(() => void this.#channels.delete(channel));
      channel.onMessage((request) => {
        this.requests.push(request);
        const run = () => void channel.send(this.#execute(request));
        if (this.hold) this.#held.push(run);
        else run();
      });
    },
  };

  get openStreams(): number {
    return this.#channels.size;
  }

  release(): void {
    this.hold = false;
    for (const run of this.#held.splice(0)) run();
  }

  breakStreams(): void {
    for (const channel of [...this.#channels]) channel.close(new ContractError("unavailable", "the memory-manager is gone"));
  }

  offset(address: bigint): number {
    return Number(address - this.base);
  }

  #execute({ machine, id, device, segments }: DmaRequest): DmaResponse {
    const answer = (status: DmaStatus, data: Uint8Array[] = []) => ({ machine, id, status, data });
    if (this.fail !== undefined) return answer(this.fail);
    const grants = this.grants.get(`${machine}/${device}`) ?? [];
    for (const { address, readLength, writeData } of segments) {
      const end = address + BigInt(readLength || writeData.length);
      if (address < this.base || end > this.base + BigInt(this.bytes.length)) return answer(DmaStatus.OUT_OF_RANGE);
      const granted = grants.some(
        ({ range, write }) => range && address >= range.base && end <= range.base + range.bytes && (write || writeData.length === 0),
      );
      if (!granted) return answer(DmaStatus.DENIED);
    }
    const data: Uint8Array[] = [];
    for (const { address, readLength, writeData } of segments) {
      const at = this.offset(address);
      if (readLength > 0) data.push(this.bytes.slice(at, at + readLength));
      else this.bytes.set(writeData, at);
    }
    return answer(DmaStatus.OK, data);
  }
}
