/** QEMU's `-netdev stream` and `socket`: each frame behind its length, 4 bytes, big-endian (net/stream.c). */
const LENGTH_BYTES = 4;

export function frameForQemu(frame: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(LENGTH_BYTES + frame.length);
  new DataView(bytes.buffer).setUint32(0, frame.length);
  bytes.set(frame, LENGTH_BYTES);
  return bytes;
}

/** Takes a byte stream apart. Never holds more than one frame of `maxBytes`. */
export class QemuDeframer {
  readonly #maxBytes: number;
  #rest = new Uint8Array(0);

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }
  /** Whole frames, each with memory of its own. Undefined: the stream is out of step and cannot be read further. */
  push(chunk: Uint8Array): Uint8Array[] | undefined {
    let bytes = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength); // a Buffer's slice would be a view
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + chunk.length);
      bytes.set(this.#rest);
      bytes.set(chunk, this.#rest.length);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const frames: Uint8Array[] = [];
    let at = 0;
    while (at + LENGTH_BYTES <= bytes.length) {
      const length = view.getUint32(at);
      if (length > this.#maxBytes) return undefined;
      if (at + LENGTH_BYTES + length > bytes.length) break;
      frames.push(bytes.slice(at + LENGTH_BYTES, at + LENGTH_BYTES + length));
      at += LENGTH_BYTES + length;
    }
    this.#rest = bytes.slice(at);
    return frames;
  }
}
