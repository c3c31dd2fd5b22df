/**
 * Reads a tar stream (POSIX ustar with GNU long names, as `dpkg-deb --fsys-tarfile` writes it) and hands out the
 * regular files that are asked for; everything else passes by without being kept.
 */
const BLOCK = 512;

export async function readTar(
  source: AsyncIterable<Uint8Array>,
  wanted: (path: string) => boolean,
  onFile: (path: string, data: Uint8Array) => void | Promise<void>,
): Promise<void> {
  const input = new Input(source);
  let longName: string | undefined;
  for (;;) {
    const block = await input.take(BLOCK);
    // End: zero blocks. What pads the archive after them is read too, or the producer's pipe never closes.
    if (!block || block.every((byte) => byte === 0)) return input.drain();
    checkSum(block);
    const size = octal(block, 124, 12);
    const padded = Math.ceil(size / BLOCK) * BLOCK;
    const type = String.fromCharCode(block[156] as number);
    if (type === "L") {
      const name = await input.need(padded);
      longName = cString(name.subarray(0, size));
      continue;
    }
    const prefix = cString(block.subarray(345, 500));
    const name = cString(block.subarray(0, 100));
    const path = (longName ?? (prefix ? `${prefix}/${name}` : name)).replace(/^\.?\/+/, "");
    longName = undefined;
    if ((type === "0" || type === "\0") && wanted(path)) {
      const data = await input.need(padded);
      await onFile(path, data.subarray(0, size));
    } else {
      await input.skip(padded);
    }
  }
}

/** Bytes on demand from a stream of chunks. */
class Input {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);
  constructor(source: AsyncIterable<Uint8Array>) {
    this.#chunks = source[Symbol.asyncIterator]();
  }
  async #more(): Promise<boolean> {
    const next = await this.#chunks.next();
    if (next.done) return false;
    this.#rest = next.value;
    return true;
  }
  /** `length` bytes in an array of their own; undefined at the clean end of the stream. */
  async take(length: number): Promise<Uint8Array | undefined> {
    const out = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      if (this.#rest.length === 0 && !(await this.#more())) {
        if (filled === 0) return undefined;
        throw new Error(`tar: the archive ends in the middle of a block (${filled} of ${length} bytes); it is truncated`);
      }
      const part = this.#rest.subarray(0, length - filled);
      out.set(part, filled);
      filled += part.length;
      this.#rest = this.#rest.subarray(part.length);
    }
    return out;
  }
  async need(length: number): Promise<Uint8Array> {
    if (length === 0) return new Uint8Array(0);
    const data = await this.take(length);
    if (!data) throw new Error("tar: the archive ends before the data of its last file; it is truncated");
    return data;
  }
  async drain(): Promise<void> {
    while (await this.#more());
  }
  async skip(length: number): Promise<void> {
    let left = length;
    while (left > 0) {
      if (this.#rest.length === 0 && !(await this.#more())) throw new Error("tar: the archive is truncated");
      const step = Math.min(left, this.#rest.length);
      this.#rest = this.#rest.subarray(step);
      left -= step;
    }
  }
}

function checkSum(block: Uint8Array): void {
  // The checksum is computed with its own field as spaces.
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 0x20 : (block[i] as number);
  if (sum !== octal(block, 148, 8)) throw new Error("tar: a header's checksum is wrong; the archive is damaged or not a tar");
}

function octal(block: Uint8Array, offset: number, length: number): number {
  if ((block[offset] as number) & 0x80) {
    // GNU base-256 for sizes of 8 GiB and more.
    let value = 0;
    for (let i = 1; i < length; i++) value = value * 256 + (block[offset + i] as number);
    return value;
  }
  const digits = cString(block.subarray(offset, offset + length)).trim();
  const value = digits === "" ? 0 : Number.parseInt(digits, 8);
  if (!Number.isSafeInteger(value)) throw new Error(`tar: "${digits}" is not an octal number; the archive is damaged`);
  return value;
}

function cString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}
