/**
 * Large buffers that are used again: a fresh megabyte costs 0.3 ms in page faults and garbage collection, as much as a guest's
 * whole request. Who makes a large message takes its bytes from here; who receives it in the same process, and is the last to
 * need them, gives them back. Bytes that nobody gives back are collected as ever.
 */
const UNIT_BYTES = 64 * 1024;
const KEPT_BYTES = 16 * 1024 * 1024;

const free = new Map<number, ArrayBuffer[]>();
/** Those of ours that somebody has: what is given back twice, or is not from here, changes nothing. */
let taken = new WeakSet<ArrayBufferLike>();
let anyTaken = false;
let keptBytes = 0;

/** `length` bytes with any content. */
export function takeBytes(length: number): Uint8Array<ArrayBuffer> {
  if (length < UNIT_BYTES) return new Uint8Array(length);
  const byteLength = Math.ceil(length / UNIT_BYTES) * UNIT_BYTES;
  let buffer = free.get(byteLength)?.pop();
  if (buffer) keptBytes -= byteLength;
  else buffer = new ArrayBuffer(byteLength);
  taken.add(buffer);
  anyTaken = true;
  return new Uint8Array(buffer, 0, length);
}

/** The buffer below `bytes` is needed by nobody any more, not by other views of it either. */
export function giveBytesBack({ buffer }: Uint8Array): void {
  if (!taken.delete(buffer) || keptBytes + buffer.byteLength > KEPT_BYTES) return;
  keptBytes += buffer.byteLength;
  const list = free.get(buffer.byteLength);
  if (list) list.push(buffer as ArrayBuffer);
  else free.set(buffer.byteLength, [buffer as ArrayBuffer]);
}

/** Somebody is looking at messages, and may keep one: what is on its way now is not used again. */
export function keepTakenBytes(): void {
  if (!anyTaken) return;
  taken = new WeakSet();
  anyTaken = false;
}
