import { ContractError, type Channel } from "@polyvisor/contracts";
import { BlockStatus, type BlockRequest, type BlockResponse } from "@polyvisor/contracts/image";
import type { DiskStore, OpenDisk } from "./disk-store.ts";
import { contractError } from "./errors.ts";
import { StorageError } from "./files.ts";
import { SECTOR_BYTES, type LayeredDisk } from "./layered-disk.ts";

/** One read or write moves at most this much (image.proto, ReadBlocks). */
export const MAX_TRANSFER_BYTES = 1024 * 1024;
/** A device that has more requests unanswered is not keeping count; virtio queues here hold 256. */
const MAX_OUTSTANDING = 4096;

/** A full disk fails every write of a guest: lines that one stream may put into the log. */
const MAX_FAILURES_LOGGED = 16;

const NOTHING = new Uint8Array(0);

export interface BlockStreamLog {
  /** An operation failed for a reason of ours, not of the caller's. */
  failed(disk: string, operation: string, error: unknown): void;
}

/**
 * The blocks plane: one stream is one open disk. Operations run side by side and are answered by id as they finish;
 * nothing a caller sends throws out of here.
 */
export function serveBlocks(disks: DiskStore, channel: Channel<BlockResponse, BlockRequest>, log: BlockStreamLog): void {
  let open: Promise<OpenDisk> | undefined;
  let disk: LayeredDisk | undefined;
  let outstanding = 0;
  let failures = 0;

  const answer = (request: BlockRequest, status: BlockStatus, data: Uint8Array = NOTHING, diskBytes = 0n): void => {
    channel.send({ machine: request.machine, disk: request.disk, id: request.id, status, data, diskBytes });
  };

  const begin = async (request: BlockRequest, readOnly: boolean): Promise<OpenDisk> => {
    const handle = await disks.open(request.disk, readOnly);
    answer(request, BlockStatus.OK, NOTHING, BigInt(handle.disk.bytes));
    disk = handle.disk;
    return handle;
  };

  channel.onMessage((request) => {
    const operation = request.operation;
    if (!open) {
      if (operation?.$case !== "open") {
        channel.close(new ContractError("precondition", `blocks: the first message must open a disk, got ${operation?.$case ?? "nothing"}`));
        return;
      }
      open = begin(request, operation.value.readOnly);
      open.catch((error: unknown) => channel.close(contractError(`blocks: open ${request.disk}`, error)));
      return;
    }
    const failed = (error: unknown): void => {
      const status = error instanceof StorageError && error.problem === "no-space" ? BlockStatus.NO_SPACE : BlockStatus.IO_ERROR;
      if (++failures <= MAX_FAILURES_LOGGED) log.failed(request.disk, operation?.$case ?? "none", error);
      answer(request, status);
    };
    try {
      const now = disk && executeNow(disk, request);
      if (now) return answer(request, now.status, now.data);
    } catch (error) {
      return failed(error);
    }
    if (++outstanding > MAX_OUTSTANDING) {
      channel.close(new ContractError("exhausted", `blocks: more than ${MAX_OUTSTANDING} operations without an answer`));
      return;
    }
    void open
      .then((handle) => execute(handle.disk, request))
      .then(({ status, data }) => answer(request, status, data), failed)
      .finally(() => outstanding--);
  });
  channel.onClose(() => {
    // Without the machine the disk is closed; what it had been told is finished and flushed first.
    void open?.then((handle) => handle.close().catch((error: unknown) => log.failed(handle.id, "close", error))).catch(() => {});
  });
}

interface Outcome {
  readonly status: BlockStatus;
  readonly data?: Uint8Array;
}

const OK: Outcome = { status: BlockStatus.OK };
const OUT_OF_RANGE: Outcome = { status: BlockStatus.OUT_OF_RANGE };
const READ_ONLY: Outcome = { status: BlockStatus.READ_ONLY };
const IO_ERROR: Outcome = { status: BlockStatus.IO_ERROR };

async function execute(disk: LayeredDisk, request: BlockRequest): Promise<Outcome> {
  const operation = request.operation;
  switch (operation?.$case) {
    case "read": {
      const length = operation.value.sectors * SECTOR_BYTES;
      const position = inside(disk, operation.value.sector, BigInt(operation.value.sectors));
      if (position === undefined || length > MAX_TRANSFER_BYTES) return OUT_OF_RANGE;
      return { status: BlockStatus.OK, data: length === 0 ? NOTHING : await disk.read(position, length) };
    }
    case "write": {
      const { sector, data } = operation.value;
      if (disk.readOnly) return READ_ONLY;
      if (data.length % SECTOR_BYTES !== 0) return IO_ERROR;
      const position = inside(disk, sector, BigInt(data.length / SECTOR_BYTES));
      if (position === undefined || data.length > MAX_TRANSFER_BYTES) return OUT_OF_RANGE;
      if (data.length > 0) await disk.write(position, data);
      return OK;
    }
    case "flush":
      if (!disk.readOnly) await disk.flush();
      return OK;
    case "discard":
    case "writeZeroes": {
      const { sector, sectors } = operation.value;
      if (disk.readOnly) return READ_ONLY;
      const position = inside(disk, sector, sectors);
      if (position === undefined) return OUT_OF_RANGE;
      const length = Number(sectors) * SECTOR_BYTES;
      if (length === 0) return OK;
      await (operation.$case === "discard" ? disk.discard(position, length) : disk.writeZeroes(position, length));
      return OK;
    }
    case "open": // a stream is one disk
    case undefined:
      return IO_ERROR;
  }
}

/** An operation that is over before anybody else could have had a turn; undefined: it takes {@link execute}. */
function executeNow(disk: LayeredDisk, { operation }: BlockRequest): Outcome | undefined {
  if (operation?.$case === "read") {
    const length = operation.value.sectors * SECTOR_BYTES;
    const position = inside(disk, operation.value.sector, BigInt(operation.value.sectors));
    if (position === undefined || length === 0 || length > MAX_TRANSFER_BYTES) return undefined;
    const data = disk.readNow(position, length);
    return data && { status: BlockStatus.OK, data };
  }
  if (operation?.$case === "write" && !disk.readOnly) {
    const { sector, data } = operation.value;
    if (data.length === 0 || data.length > MAX_TRANSFER_BYTES || data.length % SECTOR_BYTES !== 0) return undefined;
    const position = inside(disk, sector, BigInt(data.length / SECTOR_BYTES));
    return position !== undefined && disk.writeNow(position, data) ? OK : undefined;
  }
  if (operation?.$case === "flush") return disk.readOnly || disk.flushNow() ? OK : undefined;
  return undefined;
}

/** Byte position of a range of sectors that lies on the disk. */
function inside(disk: LayeredDisk, sector: bigint, sectors: bigint): number | undefined {
  const all = BigInt(disk.bytes / SECTOR_BYTES);
  return sector >= 0n && sectors >= 0n && sector <= all && sectors <= all - sector ? Number(sector) * SECTOR_BYTES : undefined;
}
