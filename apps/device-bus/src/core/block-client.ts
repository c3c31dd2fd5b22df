import { ContractError, type Channel } from "@polyvisor/contracts";
import { BlockStatus, type BlockRequest, type BlockResponse, type ImagePort } from "@polyvisor/contracts/image";
import { soon, type Soon } from "@polyvisor/virtio";

export interface BlockResult {
  ok: boolean;
  data: Uint8Array;
}

const NOTHING = new Uint8Array(0);
const LOST: BlockResult = { ok: false, data: NOTHING };

/** One open disk of the image-registry. Requests are pipelined; calls never reject, and answer at once when the disk does. */
export class BlockClient {
  readonly #machine: string;
  readonly #disk: string;
  readonly #channel: Channel<BlockRequest, BlockResponse>;
  readonly #waiting = new Map<bigint, (response: BlockResponse | undefined) => void>();
  #nextId = 1n;
  #closed = false;
  /** Known once open. */
  sectors = 0n;
  errors = 0;

  private constructor(machine: string, disk: string, images: ImagePort, lost: (reason: string) => void) {
    this.#machine = machine;
    this.#disk = disk;
    this.#channel = images.blocks();
    this.#channel.onMessage((response) => {
      const answer = this.#waiting.get(response.id);
      this.#waiting.delete(response.id);
      answer?.(response);
    });
    this.#channel.onClose((error) => {
      const deliberate = this.#closed;
      this.#closed = true;
      const reason = `block stream of disk ${disk} ended: ${error?.message ?? "closed by the image-registry"}`;
      for (const answer of this.#waiting.values()) answer(undefined);
      this.#waiting.clear();
      this.#failure = error ?? new ContractError("unavailable", reason);
      if (!deliberate && this.sectors > 0n) lost(reason);
    });
  }
  #failure: ContractError | undefined;

  /** Opens the disk for this machine alone. Rejects with the image-registry's reason. */
  static async open(
    machine: string,
    disk: string,
    readOnly: boolean,
    images: ImagePort,
    lost: (reason: string) => void,
  ): Promise<BlockClient> {
    const client = new BlockClient(machine, disk, images, lost);
    const response = await client.#ask({ $case: "open", value: { readOnly } });
    if (response?.status !== BlockStatus.OK || response.diskBytes < 512n) {
      const reason = client.#failure?.message ?? `status ${response?.status}, ${response?.diskBytes} bytes`;
      const condition = client.#failure?.condition ?? "precondition";
      client.close();
      throw new ContractError(condition, `open disk ${disk}: ${reason}; does it exist, and is no other machine using it?`);
    }
    client.sectors = response.diskBytes / 512n;
    return client;
  }

  read(sector: bigint, sectors: number): Soon<BlockResult> {
    return this.#run({ $case: "read", value: { sector, sectors } }, sectors * 512);
  }
  write(sector: bigint, data: Uint8Array): Soon<BlockResult> {
    return this.#run({ $case: "write", value: { sector, data } }, 0);
  }
  flush(): Soon<BlockResult> {
    return this.#run({ $case: "flush", value: {} }, 0);
  }
  discard(sector: bigint, sectors: bigint): Soon<BlockResult> {
    return this.#run({ $case: "discard", value: { sector, sectors } }, 0);
  }
  writeZeroes(sector: bigint, sectors: bigint): Soon<BlockResult> {
    return this.#run({ $case: "writeZeroes", value: { sector, sectors } }, 0);
  }

  close(): void {
    this.#closed = true;
    this.#channel.close();
  }

  #run(operation: BlockRequest["operation"], expectedBytes: number): Soon<BlockResult> {
    return soon(this.#ask(operation), (response) => {
      if (response?.status === BlockStatus.OK && response.data.length === expectedBytes) return { ok: true, data: response.data };
      this.errors++;
      return LOST;
    });
  }

  /** The answer itself when it comes before `send` returns. */
  #ask(operation: BlockRequest["operation"]): Soon<BlockResponse | undefined> {
    if (this.#channel.closed) return undefined;
    const id = this.#nextId++;
    let answered: { response: BlockResponse | undefined } | undefined;
    let later: ((response: BlockResponse | undefined) => void) | undefined;
    this.#waiting.set(id, (response) => {
      if (later) later(response);
      else answered = { response };
    });
    this.#channel.send({ machine: this.#machine, disk: this.#disk, id, operation });
    return answered ? answered.response : new Promise((resolve) => (later = resolve));
  }
}
