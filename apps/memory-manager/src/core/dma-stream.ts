import { takeBytes, type Channel } from "@polyvisor/contracts";
import { DmaStatus, type DmaRequest, type DmaResponse } from "@polyvisor/contracts/memory";
import type { AccessSegment } from "./coherent-pages.ts";
import type { Space } from "./space.ts";

/** Bytes that one DMA request may move. */
export const MAX_DMA_BYTES = 4 * 1024 * 1024;
export const MAX_DMA_SEGMENTS = 4096;
/** Requests of one stream on their way at a time. */
export const MAX_DMA_PENDING = 1024;

/** Serves one DMA stream. Requests take effect in the order they come, and are answered when they have. */
export function serveDma(
  channel: Channel<DmaResponse, DmaRequest>,
  spaceOf: (machine: string) => Space | undefined,
): void {
  let pending = 0;
  channel.onMessage((request) => {
    const { machine, id } = request;
    const answer = (status: DmaStatus, data: Uint8Array[] = []) => channel.send({ machine, id, status, data });
    const space = spaceOf(machine);
    if (!space || space.failed || pending >= MAX_DMA_PENDING) return void answer(DmaStatus.FAILED);
    const { counters } = space;
    const status = check(space, request);
    if (status !== DmaStatus.OK) {
      counters.dmaDenied++;
      return void answer(status);
    }
    const segments: AccessSegment[] = [];
    const data: Uint8Array[] = [];
    let writes = false;
    // What is read lies in one piece, so that whoever gathers it need not copy: a disk write of 1 MiB has 256 segments.
    const gathered = takeBytes(request.segments.reduce((sum, { readLength, writeData }) => sum + (writeData.length > 0 ? 0 : readLength), 0));
    let gatheredBytes = 0;
    for (const { address, readLength, writeData } of request.segments) {
      const write = writeData.length > 0;
      if (!write && readLength === 0) continue;
      const buffer = write ? writeData : gathered.subarray(gatheredBytes, (gatheredBytes += readLength));
      if (!write) data.push(buffer);
      writes ||= write;
      counters.dmaBytes += buffer.length;
      segments.push({ offset: Number(address - space.spec.base), write, buffer });
    }
    if (writes) counters.dmaWrites++;
    else counters.dmaReads++;
    pending++;
    space.access(segments, (ok) => {
      pending--;
      if (ok) answer(DmaStatus.OK, data);
      else answer(DmaStatus.FAILED);
    });
  });
}

/** Everything is checked before anything is touched: a request that is refused has had no effect. */
function check(space: Space, { device, segments }: DmaRequest): DmaStatus {
  if (segments.length > MAX_DMA_SEGMENTS) return DmaStatus.OUT_OF_RANGE;
  let total = 0;
  for (const { address, readLength, writeData } of segments) {
    const write = writeData.length > 0;
    const byteLength = write ? writeData.length : readLength;
    total += byteLength;
    if ((write && readLength > 0) || total > MAX_DMA_BYTES) return DmaStatus.OUT_OF_RANGE;
    if (byteLength === 0) continue;
    if (!space.contains(address, BigInt(byteLength))) return DmaStatus.OUT_OF_RANGE;
    if (!space.grants.allows(device, address, byteLength, write)) return DmaStatus.DENIED;
  }
  return DmaStatus.OK;
}
