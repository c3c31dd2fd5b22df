/**
 * Reads tar streams: POSIX.1-1988 ustar, GNU long names, and POSIX.1-2001 pax headers (the formats of OCI layers,
 * image-spec layer.md, and of Debian packages, deb(5)). Nothing is interpreted: paths are as they stand in the archive.
 */
import { ByteSource, TarError } from "./byte-source.ts";

export type TarKind = "file" | "hard-link" | "symlink" | "directory" | "character-device" | "block-device" | "fifo" | "unknown";

export interface TarHeader {
  /** As written, a leading "./" or "/" included. */
  readonly path: string;
  readonly kind: TarKind;
  /** Permission bits, with set-user-ID, set-group-ID and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly userName: string;
  readonly groupName: string;
  /** Bytes of content; 0 for all but files. */
  readonly size: number;
  /** Whole seconds since 1970. */
  readonly mtime: number;
  /** Of links. */
  readonly target: string;
  readonly device: { readonly major: number; readonly minor: number };
  /** pax records of this entry, e.g. "SCHILY.xattr.security.capability". */
  readonly pax: ReadonlyMap<string, string>;
}

export interface TarEntry extends TarHeader {
  /** The content; only until the next entry is asked for. What is not read is skipped. */
  read(): Promise<Uint8Array>;
  /** The same piece by piece: of files that are too large for memory. */
  pieces(): AsyncGenerator<Uint8Array>;
}

const BLOCK = 512;
/** Long names and pax records: more than any path, far less than memory. */
const EXTENSION_LIMIT_BYTES = 1 << 20;
const KINDS: Readonly<Record<string, TarKind>> = {
  "0": "file", "\0": "file", "7": "file", "1": "hard-link", "2": "symlink", "3": "character-device", "4": "block-device", "5": "directory", "6": "fifo",
};

export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry> {
  const input = new ByteSource(source);
  let global: ReadonlyMap<string, string> = new Map();
  let local: ReadonlyMap<string, string> = new Map();
  let longPath: string | undefined;
  let longTarget: string | undefined;
  for (;;) {
    const block = await input.take(BLOCK);
    if (!block || block.every((byte) => byte === 0)) return input.drain();
    checkSum(block);
    const type = String.fromCharCode(block[156] as number);
    const sizeField = number(block, 124, 12);
    if (type === "L" || type === "K" || type === "x" || type === "g") {
      const data = await extension(input, sizeField);
      if (type === "L") longPath = cString(data);
      else if (type === "K") longTarget = cString(data);
      else if (type === "x") local = paxRecords(data);
      else global = new Map([...global, ...paxRecords(data)]);
      continue;
    }
    const pax: ReadonlyMap<string, string> = global.size === 0 ? local : new Map([...global, ...local]);
    const header = readHeader(block, pax, longPath, longTarget);
    // Links, directories and devices have no content, whatever their size field says (pax(1); as Go's archive/tar).
    const hasContent = header.kind === "file" || header.kind === "unknown";
    const content = hasContent ? paxNumber(pax, "size", sizeField) : 0;
    if (content < 0) throw new TarError(`${header.path}: a size of ${content} bytes; the archive is damaged`);
    let left = Math.ceil(content / BLOCK) * BLOCK;
    yield {
      ...header,
      size: header.kind === "file" ? content : 0,
      read: async () => {
        const padded = left;
        left = 0;
        if (padded === 0) return new Uint8Array(0);
        const data = await input.take(padded);
        if (!data) throw new TarError("the archive ends before the data of its last file; it is truncated");
        return data.subarray(0, content);
      },
      pieces: async function* () {
        const padding = left - content;
        while (left > padding) {
          const piece = await input.some(left - padding);
          if (!piece) throw new TarError("the archive ends before the data of its last file; it is truncated");
          left -= piece.length;
          yield piece;
        }
      },
    };
    await input.skip(left);
    local = new Map();
    longPath = longTarget = undefined;
  }
}

function readHeader(block: Uint8Array, pax: ReadonlyMap<string, string>, longPath: string | undefined, longTarget: string | undefined): TarHeader {
  const ustar = latin1(block.subarray(257, 262)) === "ustar";
  const posix = ustar && block[262] === 0; // GNU's magic is "ustar  \0"; its prefix field holds something else
  const prefix = posix ? cString(block.subarray(345, 500)) : "";
  const name = cString(block.subarray(0, 100));
  const path = pax.get("path") ?? longPath ?? (prefix ? `${prefix}/${name}` : name);
  const plain = KINDS[String.fromCharCode(block[156] as number)] ?? "unknown";
  return {
    path,
    // Before POSIX a directory was a file whose name ends with a slash.
    kind: plain === "file" && path.endsWith("/") ? "directory" : plain,
    mode: number(block, 100, 8) & 0o7777,
    uid: paxNumber(pax, "uid", number(block, 108, 8)),
    gid: paxNumber(pax, "gid", number(block, 116, 8)),
    userName: pax.get("uname") ?? (ustar ? cString(block.subarray(265, 297)) : ""),
    groupName: pax.get("gname") ?? (ustar ? cString(block.subarray(297, 329)) : ""),
    size: 0,
    mtime: Math.floor(paxNumber(pax, "mtime", number(block, 136, 12))),
    target: pax.get("linkpath") ?? longTarget ?? cString(block.subarray(157, 257)),
    device: ustar ? { major: number(block, 329, 8), minor: number(block, 337, 8) } : { major: 0, minor: 0 },
    pax,
  };
}

async function extension(input: ByteSource, size: number): Promise<Uint8Array> {
  if (size > EXTENSION_LIMIT_BYTES) throw new TarError(`an extended header of ${size} bytes; at most ${EXTENSION_LIMIT_BYTES} are read`);
  if (size === 0) return new Uint8Array(0);
  const data = await input.take(Math.ceil(size / BLOCK) * BLOCK);
  if (!data) throw new TarError("the archive ends in an extended header; it is truncated");
  return data.subarray(0, size);
}

/** Records "<length> <key>=<value>\n", the length counting itself (pax(1), "pax Extended Header"). */
function paxRecords(data: Uint8Array): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at);
    const length = space < 0 ? Number.NaN : Number(latin1(data.subarray(at, space)));
    const equals = data.indexOf(0x3d, space);
    if (!Number.isInteger(length) || length <= 0 || at + length > data.length || equals < 0 || equals >= at + length) {
      throw new TarError("an extended header's record has a wrong length; the archive is damaged");
    }
    records.set(text(data.subarray(space + 1, equals)), text(data.subarray(equals + 1, at + length - 1)));
    at += length;
  }
  return records;
}

function paxNumber(pax: ReadonlyMap<string, string>, key: string, otherwise: number): number {
  const value = pax.get(key);
  if (value === undefined) return otherwise;
  if (!/^-?\d{1,16}(\.\d*)?$/.test(value)) throw new TarError(`pax ${key}="${value.slice(0, 40)}" is not a number`);
  return Number(value);
}

function checkSum(block: Uint8Array): void {
  // The checksum is computed with its own field as spaces.
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 0x20 : (block[i] as number);
  if (sum !== number(block, 148, 8)) throw new TarError("a header's checksum is wrong; the archive is damaged or not a tar");
}

/** Octal digits, or GNU's base-256 when the first bit is set. */
function number(block: Uint8Array, offset: number, length: number): number {
  const first = block[offset] as number;
  if (first & 0x80) {
    let value = first & 0x40 ? -1 : first & 0x3f;
    for (let i = 1; i < length; i++) value = value * 256 + (block[offset + i] as number);
    if (!Number.isSafeInteger(value)) throw new TarError("a number in a header exceeds 2^53; the archive is damaged");
    return value;
  }
  const digits = cString(block.subarray(offset, offset + length)).trim();
  if (!/^[0-7]*$/.test(digits)) throw new TarError(`"${digits}" is not an octal number; the archive is damaged`);
  return digits === "" ? 0 : Number.parseInt(digits, 8);
}

function cString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return text(end < 0 ? bytes : bytes.subarray(0, end));
}

const decoder = new TextDecoder();
const text = (bytes: Uint8Array): string => decoder.decode(bytes);
const latin1 = (bytes: Uint8Array): string => String.fromCharCode(...bytes);
