import { assemble } from "@polyvisor/isa";

const BASE = 0x1_0000n;
const HEADERS = 120; // the ELF header and one program header

/** A static riscv64 Linux executable (System V ABI, "ELF Header") out of assembly that begins at the label `start`. */
export function guestProgram(source: string): Uint8Array {
  const { bytes, labels } = assemble(`.space ${HEADERS}\n${source}`, { base: BASE });
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // 64 bits, little-endian
  view.setUint16(16, 2, true); // ET_EXEC
  view.setUint16(18, 243, true); // EM_RISCV
  view.setUint32(20, 1, true);
  view.setBigUint64(24, labels.get("start")!, true);
  view.setBigUint64(32, 64n, true); // program headers
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 1, true); // PT_LOAD
  view.setUint32(68, 7, true); // RWX
  view.setBigUint64(80, BASE, true);
  view.setBigUint64(88, BASE, true);
  view.setBigUint64(96, BigInt(bytes.length), true);
  view.setBigUint64(104, BigInt(bytes.length), true);
  view.setBigUint64(112, 4096n, true);
  return bytes;
}
