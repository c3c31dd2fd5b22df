import type { Offload } from "@polyvisor/contracts/network";

/** struct virtio_net_hdr with num_buffers (virtio 1.2, 5.1.6), as TAP interfaces speak it. */
export const VIRTIO_NET_HEADER_BYTES = 12;
const F_NEEDS_CSUM = 1;
const F_DATA_VALID = 2;

/** Undefined: nothing is left to do on the frame. */
export function readVirtioHeader(bytes: Buffer): Offload | undefined {
  const flags = bytes[0]!;
  const gsoType = bytes[1]!;
  if ((flags & ~F_DATA_VALID) === 0 && gsoType === 0) return undefined;
  return {
    needsChecksum: (flags & F_NEEDS_CSUM) !== 0,
    gsoType,
    headerLength: bytes.readUInt16LE(2),
    gsoSize: bytes.readUInt16LE(4),
    checksumStart: bytes.readUInt16LE(6),
    checksumOffset: bytes.readUInt16LE(8),
  };
}
export function writeVirtioHeader(bytes: Buffer, offload: Offload | undefined): void {
  bytes.fill(0, 0, VIRTIO_NET_HEADER_BYTES);
  if (!offload) return;
  bytes[0] = offload.needsChecksum ? F_NEEDS_CSUM : 0;
  bytes[1] = offload.gsoType;
  bytes.writeUInt16LE(offload.headerLength, 2);
  bytes.writeUInt16LE(offload.gsoSize, 4);
  bytes.writeUInt16LE(offload.checksumStart, 6);
  bytes.writeUInt16LE(offload.checksumOffset, 8);
}
