import { ContractError, type Channel, type Implementation } from "@polyvisor/contracts";
import { BlockStatus, IMAGE, type BlockRequest, type BlockResponse } from "@polyvisor/contracts/image";

const NOTHING = new Uint8Array(0);

/** The blocks plane of an image-registry on plain bytes: one open at a time, sector bounds, read-only opens. */
export class FakeImages {
  /** Contents by disk id; lengths are multiples of 512. */
  readonly disks = new Map<string, Uint8Array>();
  readonly requests: BlockRequest[] = [];
  /** Answered to every operation but open. */
  fail: BlockStatus | undefined;
  /** While set, operations but open are kept until `release()`. */
  hold = false;
  #held: (() => void)[] = [];
  readonly #open = new Map<string, Channel<BlockResponse, BlockRequest>>();

  readonly implementation: Implementation<typeof IMAGE.definition> = {
    blocks: (channel) => {
      let disk: { id: string; bytes: Uint8Array; readOnly: boolean } | undefined;
      channel.onClose(() => void (disk && this.#open.delete(disk.id)));
      channel.onMessage((request) => {
        this.requests.push(request);
        if (request.operation?.$case === "open") {
          const bytes = this.disks.get(request.disk);
          if (!bytes) return channel.close(new ContractError("not-found", `there is no disk ${request.disk}`));
          if (this.#open.has(request.disk)) return channel.close(new ContractError("conflict", `disk ${request.disk} is open`));
          this.#open.set(request.disk, channel);
          disk = { id: request.disk, bytes, readOnly: request.operation.value.readOnly };
          channel.send({ ...answer(request, BlockStatus.OK), diskBytes: BigInt(bytes.length) });
          return;
        }
        if (!disk) return channel.close(new ContractError("precondition", "the first message opens the disk"));
        const { bytes, readOnly } = disk;
        const run = () => void channel.send(this.fail === undefined ? execute(request, bytes, readOnly) : answer(request, this.fail));
        if (this.hold) this.#held.push(run);
        else run();
      });
    },
  };

  get openDisks(): readonly string[] {
    return [...this.#open.keys()];
  }

  release(): void {
    this.hold = false;
    for (const run of this.#held.splice(0)) run();
  }

  breakStreams(): void {
    for (const channel of [...this.#open.values()]) channel.close(new ContractError("unavailable", "the image-registry is gone"));
  }
}

function answer({ machine, disk, id }: BlockRequest, status: BlockStatus, data: Uint8Array = NOTHING): BlockResponse {
  return { machine, disk, id, status, data, diskBytes: 0n };
}

function execute(request: BlockRequest, bytes: Uint8Array, readOnly: boolean): BlockResponse {
  const { operation } = request;
  if (!operation || operation.$case === "open" || operation.$case === "flush") return answer(request, BlockStatus.OK);
  const start = Number(operation.value.sector) * 512;
  const byteLength = operation.$case === "write" ? operation.value.data.length : Number(operation.value.sectors) * 512;
  if (start + byteLength > bytes.length) return answer(request, BlockStatus.OUT_OF_RANGE);
  if (operation.$case === "read") return answer(request, BlockStatus.OK, bytes.slice(start, start + byteLength));
  if (readOnly) return answer(request, BlockStatus.READ_ONLY);
  if (operation.$case === "write") bytes.set(operation.value.data, start);
  else bytes.fill(0, start, start + byteLength);
  return answer(request, BlockStatus.OK);
}
