/**
 * Packet capture files (draft-ietf-opsawg-pcapng): a section, a description of each interface, enhanced packets.
 * Little-endian, nanoseconds.
 */
const BLOCK = { SECTION: 0x0a0d_0d0a, INTERFACE: 1, ENHANCED_PACKET: 6, INTERFACE_STATISTICS: 5 } as const;
const BYTE_ORDER_MAGIC = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET = 1;
const OPTION = { END: 0, HARDWARE: 2, OS: 3, USER_APPLICATION: 4, IF_NAME: 2, IF_TSRESOL: 9, EPB_FLAGS: 2, ISB_IFRECV: 4, ISB_IFDROP: 5 } as const;
const NANOSECONDS = 9;

export interface PcapngPacket {
  /** As numbered by the interface blocks written before. */
  readonly interface: number;
  readonly unixNanoseconds: bigint;
  readonly data: Uint8Array;
  /** Of the frame on the wire; more than `data` when it was cut. */
  readonly originalLength: number;
  /** epb_flags, 4.3.1.1: inbound 1, outbound 2. */
  readonly direction?: "in" | "out" | undefined;
}

export function pcapngSection(application: string): Uint8Array {
  const body = new Uint8Array(16);
  const view = new DataView(body.buffer);
  view.setUint32(0, BYTE_ORDER_MAGIC, true);
  view.setUint16(4, 1, true); // version 1.0
  view.setBigInt64(8, -1n, true); // section length: unknown
  return block(BLOCK.SECTION, body, [[OPTION.USER_APPLICATION, new TextEncoder().encode(application)]]);
}
export function pcapngInterface(name: string, snapBytes: number): Uint8Array {
  const body = new Uint8Array(8);
  const view = new DataView(body.buffer);
  view.setUint16(0, LINKTYPE_ETHERNET, true);
  view.setUint32(4, snapBytes, true); // 0: no limit
  return block(BLOCK.INTERFACE, body, [
    [OPTION.IF_NAME, new TextEncoder().encode(name)],
    [OPTION.IF_TSRESOL, Uint8Array.of(NANOSECONDS)],
  ]);
}
export function pcapngPacket(packet: PcapngPacket): Uint8Array {
  const padded = pad(packet.data.length);
  const body = new Uint8Array(20 + padded);
  const view = new DataView(body.buffer);
  view.setUint32(0, packet.interface, true);
  view.setUint32(4, Number(packet.unixNanoseconds >> 32n), true);
  view.setUint32(8, Number(packet.unixNanoseconds & 0xffff_ffffn), true);
  view.setUint32(12, packet.data.length, true);
  view.setUint32(16, packet.originalLength, true);
  body.set(packet.data, 20);
  const flags = packet.direction === "in" ? 1 : packet.direction === "out" ? 2 : 0;
  return block(BLOCK.ENHANCED_PACKET, body, flags === 0 ? [] : [[OPTION.EPB_FLAGS, u32(flags)]]);
}
/** What was not written because the reader was too slow. */
export function pcapngStatistics(interfaceNumber: number, unixNanoseconds: bigint, counts: { received: number; dropped: number }): Uint8Array {
  const body = new Uint8Array(12);
  const view = new DataView(body.buffer);
  view.setUint32(0, interfaceNumber, true);
  view.setUint32(4, Number(unixNanoseconds >> 32n), true);
  view.setUint32(8, Number(unixNanoseconds & 0xffff_ffffn), true);
  return block(BLOCK.INTERFACE_STATISTICS, body, [
    [OPTION.ISB_IFRECV, u64(counts.received)],
    [OPTION.ISB_IFDROP, u64(counts.dropped)],
  ]);
}

/** Type, length, body, options, length again; everything padded to 32 bits (3.1, 3.5). */
function block(type: number, body: Uint8Array, options: readonly (readonly [code: number, value: Uint8Array])[]): Uint8Array {
  const optionBytes = options.length === 0 ? 0 : options.reduce((sum, [, value]) => sum + 4 + pad(value.length), 4);
  const bytes = new Uint8Array(12 + body.length + optionBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, bytes.length, true);
  bytes.set(body, 8);
  let at = 8 + body.length;
  for (const [code, value] of options) {
    view.setUint16(at, code, true);
    view.setUint16(at + 2, value.length, true);
    bytes.set(value, at + 4);
    at += 4 + pad(value.length);
  }
  view.setUint32(bytes.length - 4, bytes.length, true); // behind opt_endofopt, which is zero
  return bytes;
}
function pad(length: number): number {
  return (length + 3) & ~3;
}
function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}
function u64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
}

/** One packet of a capture that is read. */
export interface CapturedPacket {
  readonly interface: string;
  readonly unixNanoseconds: bigint;
  readonly direction: "in" | "out" | undefined;
  readonly data: Uint8Array;
}

/**
 * Reads what this file writes, in whatever pieces it comes: for showing a capture live. Blocks that it does not know are
 * skipped. Throws when the stream is no pcapng.
 */
export class PcapngReader {
  readonly #interfaces: string[] = [];
  #rest = new Uint8Array(0);

  push(chunk: Uint8Array): CapturedPacket[] {
    const bytes = new Uint8Array(this.#rest.length + chunk.length);
    bytes.set(this.#rest);
    bytes.set(chunk, this.#rest.length);
    const view = new DataView(bytes.buffer);
    const packets: CapturedPacket[] = [];
    let at = 0;
    while (at + 12 <= bytes.length) {
      const length = view.getUint32(at + 4, true);
      if (length < 12 || length % 4 !== 0 || length > MAX_BLOCK_BYTES) throw new Error(`a pcapng block of ${length} bytes`);
      if (at + length > bytes.length) break;
      const type = view.getUint32(at, true);
      if (type === BLOCK.INTERFACE) this.#interfaces.push(new TextDecoder().decode(optionOf(bytes, at + 16, at + length - 4, OPTION.IF_NAME)));
      else if (type === BLOCK.ENHANCED_PACKET) packets.push(this.#packet(bytes, view, at, length));
      at += length;
    }
    this.#rest = bytes.slice(at);
    return packets;
  }
  #packet(bytes: Uint8Array, view: DataView, at: number, length: number): CapturedPacket {
    const captured = Math.min(view.getUint32(at + 20, true), length - 32);
    const flags = optionOf(bytes, at + 28 + pad(captured), at + length - 4, OPTION.EPB_FLAGS)?.[0] ?? 0;
    return {
      interface: this.#interfaces[view.getUint32(at + 8, true)] ?? "?",
      unixNanoseconds: (BigInt(view.getUint32(at + 12, true)) << 32n) | BigInt(view.getUint32(at + 16, true)),
      direction: (flags & 3) === 1 ? "in" : (flags & 3) === 2 ? "out" : undefined,
      data: bytes.subarray(at + 28, at + 28 + captured),
    };
  }
}
const MAX_BLOCK_BYTES = 1 << 20;

function optionOf(bytes: Uint8Array, start: number, end: number, wanted: number): Uint8Array | undefined {
  const view = new DataView(bytes.buffer);
  for (let at = start; at + 4 <= end; ) {
    const [code, length] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
    if (code === wanted) return bytes.subarray(at + 4, Math.min(end, at + 4 + length));
    if (code === OPTION.END) return undefined;
    at += 4 + pad(length);
  }
  return undefined;
}
