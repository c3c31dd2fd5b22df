import { createReadStream, type Stats } from "node:fs";
import { open, readFile, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { CliError } from "../cli-error.ts";

/** The files of an OCI image layout (image-spec, image-layout.md), in a directory or in a tar archive. */
export interface LayoutFiles {
  /** For messages. */
  readonly path: string;
  size(name: string): Promise<number | undefined>;
  /** Whole; of small files. */
  read(name: string): Promise<Uint8Array>;
  stream(name: string, offset: number): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

const SMALL_FILE_BYTES = 16 << 20;

export async function openLayoutFiles(path: string): Promise<LayoutFiles> {
  let found: Stats;
  try {
    found = await stat(path);
  } catch (error) {
    throw new CliError(`cannot read ${path}: ${(error as Error).message}`);
  }
  return found.isDirectory() ? new LayoutDirectory(path) : LayoutArchive.open(path);
}

class LayoutDirectory implements LayoutFiles {
  readonly path: string;
  constructor(path: string) {
    this.path = path;
  }
  async size(name: string): Promise<number | undefined> {
    return stat(join(this.path, name)).then((found) => (found.isFile() ? found.size : undefined), () => undefined);
  }
  async read(name: string): Promise<Uint8Array> {
    await checkSmall(this, name);
    return readFile(join(this.path, name));
  }
  stream(name: string, offset: number): AsyncIterable<Uint8Array> {
    return createReadStream(join(this.path, name), { start: offset, highWaterMark: 1 << 20 });
  }
  async close(): Promise<void> {}
}

/** Finds every member once by hopping from header to header; contents are read from their places. */
class LayoutArchive implements LayoutFiles {
  readonly path: string;
  readonly #file: FileHandle;
  readonly #members: ReadonlyMap<string, { readonly at: number; readonly size: number }>;

  private constructor(path: string, file: FileHandle, members: ReadonlyMap<string, { at: number; size: number }>) {
    this.path = path;
    this.#file = file;
    this.#members = members;
  }

  static async open(path: string): Promise<LayoutArchive> {
    const file = await open(path, "r");
    try {
      return new LayoutArchive(path, file, await tarMembers(file, path));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async size(name: string): Promise<number | undefined> {
    return this.#members.get(name)?.size;
  }
  async read(name: string): Promise<Uint8Array> {
    await checkSmall(this, name);
    const { at, size } = this.#member(name);
    const bytes = Buffer.alloc(size);
    const { bytesRead } = await this.#file.read(bytes, 0, size, at);
    if (bytesRead !== size) throw new CliError(`${this.path} ends inside ${name}; it is truncated`);
    return bytes;
  }
  async *stream(name: string, offset: number): AsyncGenerator<Uint8Array> {
    const { at, size } = this.#member(name);
    for (let done = offset; done < size; ) {
      const piece = Buffer.alloc(Math.min(1 << 20, size - done));
      const { bytesRead } = await this.#file.read(piece, 0, piece.length, at + done);
      if (bytesRead === 0) throw new CliError(`${this.path} ends inside ${name}; it is truncated`);
      done += bytesRead;
      yield piece.subarray(0, bytesRead);
    }
  }
  close(): Promise<void> {
    return this.#file.close();
  }

  #member(name: string): { at: number; size: number } {
    const member = this.#members.get(name);
    if (!member) throw new CliError(`${this.path} has no ${name}`);
    return member;
  }
}

const BLOCK = 512;
/** More than any image has. */
const MEMBER_LIMIT = 100_000;

async function tarMembers(file: FileHandle, path: string): Promise<Map<string, { at: number; size: number }>> {
  const members = new Map<string, { at: number; size: number }>();
  const { size: fileBytes } = await file.stat();
  const block = Buffer.alloc(BLOCK);
  for (let at = 0; at + BLOCK <= fileBytes && members.size < MEMBER_LIMIT; ) {
    await file.read(block, 0, BLOCK, at);
    if (block.every((byte) => byte === 0)) break;
    if (block.toString("latin1", 257, 262) !== "ustar") {
      const gzip = block[0] === 0x1f && block[1] === 0x8b;
      throw new CliError(`${path} is ${gzip ? "compressed; unpack it first: gunzip" : "not a tar archive"} (expected an OCI image layout in a tar file)`);
    }
    const text = (from: number, to: number): string => block.toString("utf8", from, to).replace(/\0[^]*$/, "");
    const size = Number.parseInt(text(124, 136).trim() || "0", 8);
    if (!Number.isSafeInteger(size) || at + BLOCK + size > fileBytes) throw new CliError(`${path}: a member of ${size} bytes at ${at} goes past the end; the archive is truncated or damaged`);
    const prefix = text(345, 500);
    const name = (prefix ? `${prefix}/` : "") + text(0, 100);
    const type = block[156];
    if (type === 0x30 || type === 0) members.set(name.replace(/^\.\//, ""), { at: at + BLOCK, size });
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  return members;
}

async function checkSmall(files: LayoutFiles, name: string): Promise<void> {
  const size = await files.size(name);
  if (size === undefined) throw new CliError(`${files.path} has no ${name}; is it an OCI image layout?`);
  if (size > SMALL_FILE_BYTES) throw new CliError(`${files.path}: ${name} has ${size} bytes, at most ${SMALL_FILE_BYTES} are read`);
}
