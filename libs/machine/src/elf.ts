/**
 * ELF64 little-endian RISC-V executables (System V gABI, chapters 4 and 5; RISC-V ELF psABI): what a loader needs.
 * Every offset is checked against the file before it is used.
 */
export interface ElfFile {
  entry: bigint;
  /** PT_LOAD segments with a memory image, in file order. */
  segments: ElfSegment[];
  /** Address of a symbol such as "tohost"; undefined when the file has none, or is stripped. */
  symbol(name: string): bigint | undefined;
}
export interface ElfSegment {
  physicalAddress: bigint;
  virtualAddress: bigint;
  /** Bytes from the file; the rest up to `memoryBytes` is zero. A view, not a copy. */
  data: Uint8Array;
  memoryBytes: bigint;
  executable: boolean;
}

export class ElfError extends Error {
  override readonly name = "ElfError";
}

const ELF_MAGIC = 0x7f454c46; // big-endian reading of 7f 'E' 'L' 'F'
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const ET_EXEC = 2;
const ET_DYN = 3;
const EM_RISCV = 243;
const PT_LOAD = 1;
const PF_X = 1;
const SHT_SYMTAB = 2;
const EHDR_BYTES = 64;
const PHDR_BYTES = 56;
const SHDR_BYTES = 64;
const SYM_BYTES = 24;
/** Bounds: a guest program has a handful of segments; symbols of a kernel are ~200 k. */
const MAX_SEGMENTS = 256;
const MAX_SYMBOLS = 4_000_000;

export function isElf(file: Uint8Array): boolean {
  return file.length >= 4 && new DataView(file.buffer, file.byteOffset, 4).getUint32(0) === ELF_MAGIC;
}

/** Throws {@link ElfError} for anything but a complete RISC-V 64-bit executable. */
export function readElf(file: Uint8Array): ElfFile {
  if (!isElf(file)) throw new ElfError("ELF: magic 7f 45 4c 46 is missing");
  if (file.length < EHDR_BYTES) throw new ElfError(`ELF: ${file.length} bytes, shorter than its header (64)`);
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const elfClass = view.getUint8(4);
  const encoding = view.getUint8(5);
  if (elfClass !== ELFCLASS64 || encoding !== ELFDATA2LSB)
    throw new ElfError(`ELF: class ${elfClass}, data ${encoding}; expected 64-bit (2) little-endian (1)`);
  const type = view.getUint16(16, true);
  const machine = view.getUint16(18, true);
  if (machine !== EM_RISCV) throw new ElfError(`ELF: machine ${machine}, expected RISC-V (243)`);
  if (type !== ET_EXEC && type !== ET_DYN) throw new ElfError(`ELF: type ${type}, expected an executable (2 or 3); link it first`);

  const headerOffset = fileOffset(view, 32, "program header table");
  const headerBytes = view.getUint16(54, true);
  const headerCount = view.getUint16(56, true);
  if (headerCount > MAX_SEGMENTS) throw new ElfError(`ELF: ${headerCount} program headers, at most ${MAX_SEGMENTS}`);
  if (headerCount > 0 && headerBytes < PHDR_BYTES) throw new ElfError(`ELF: program headers of ${headerBytes} bytes, expected 56`);
  within(view, headerOffset, headerCount * headerBytes, "program header table");

  const segments: ElfSegment[] = [];
  for (let index = 0; index < headerCount; index++) {
    const at = headerOffset + index * headerBytes;
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const memoryBytes = view.getBigUint64(at + 40, true);
    if (memoryBytes === 0n) continue;
    const fileBytes = view.getBigUint64(at + 32, true);
    const offset = fileOffset(view, at + 8, `segment ${index}`);
    if (fileBytes > memoryBytes) throw new ElfError(`ELF: segment ${index} has more file bytes (${fileBytes}) than memory (${memoryBytes})`);
    within(view, offset, Number(fileBytes), `segment ${index}`);
    segments.push({
      physicalAddress: view.getBigUint64(at + 24, true),
      virtualAddress: view.getBigUint64(at + 16, true),
      data: file.subarray(offset, offset + Number(fileBytes)),
      memoryBytes,
      executable: (view.getUint32(at + 4, true) & PF_X) !== 0,
    });
  }
  if (segments.length === 0) throw new ElfError("ELF: no loadable segment");
  let symbols: Map<string, bigint> | undefined;
  return {
    entry: view.getBigUint64(24, true),
    segments,
    symbol: (name) => (symbols ??= readSymbols(file, view)).get(name),
  };
}

function readSymbols(file: Uint8Array, view: DataView): Map<string, bigint> {
  const symbols = new Map<string, bigint>();
  const tableOffset = fileOffset(view, 40, "section header table");
  const entryBytes = view.getUint16(58, true);
  const count = view.getUint16(60, true);
  if (count === 0 || tableOffset === 0) return symbols;
  if (entryBytes < SHDR_BYTES) throw new ElfError(`ELF: section headers of ${entryBytes} bytes, expected 64`);
  within(view, tableOffset, count * entryBytes, "section header table");
  const section = (index: number) => tableOffset + index * entryBytes;
  const decoder = new TextDecoder("latin1");
  for (let index = 0; index < count; index++) {
    const at = section(index);
    if (view.getUint32(at + 4, true) !== SHT_SYMTAB) continue;
    const link = view.getUint32(at + 40, true);
    if (link >= count) throw new ElfError(`ELF: symbol table names string section ${link} of ${count}`);
    const symbolsOffset = fileOffset(view, at + 24, "symbol table");
    const symbolsBytes = fileOffset(view, at + 32, "symbol table size");
    const stringsOffset = fileOffset(view, section(link) + 24, "string table");
    const stringsBytes = fileOffset(view, section(link) + 32, "string table size");
    within(view, symbolsOffset, symbolsBytes, "symbol table");
    within(view, stringsOffset, stringsBytes, "string table");
    const total = Math.min(Math.floor(symbolsBytes / SYM_BYTES), MAX_SYMBOLS);
    const strings = file.subarray(stringsOffset, stringsOffset + stringsBytes);
    for (let symbol = 0; symbol < total; symbol++) {
      const from = symbolsOffset + symbol * SYM_BYTES;
      const nameAt = view.getUint32(from, true);
      if (nameAt === 0 || nameAt >= strings.length) continue;
      const end = strings.indexOf(0, nameAt);
      if (end < 0) continue;
      symbols.set(decoder.decode(strings.subarray(nameAt, end)), view.getBigUint64(from + 8, true));
    }
  }
  return symbols;
}

/** A 64-bit offset or size that must lie in the file. */
function fileOffset(view: DataView, at: number, what: string): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(view.byteLength))
    throw new ElfError(`ELF: ${what} at 0x${value.toString(16)} lies outside the file of ${view.byteLength} bytes; is it truncated?`);
  return Number(value);
}

function within(view: DataView, offset: number, byteLength: number, what: string): void {
  if (offset + byteLength > view.byteLength)
    throw new ElfError(`ELF: ${what} ends at ${offset + byteLength}, the file has ${view.byteLength} bytes; is it truncated?`);
}
