import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { Worker } from "node:worker_threads";
import { ContractError, messages, type Channel } from "@polyvisor/contracts";
import type { ImagePort, WriteBlobResponse } from "@polyvisor/contracts/image";
import type { Logger } from "pino";
import type { LoadedTranslation, SavedTranslation, TranslationStore } from "../core/translations.ts";
import { decodeAhead } from "../core/translator/ahead/artifact.ts";
import type { RecordedRegion } from "../core/translator/ahead/recording.ts";
import { translatorVersion } from "./translator-version.ts";
import type { AheadJob } from "./ahead-worker.ts";

const KEY_BYTES = 32;
const SEAL_BYTES = 32;
/** Well under gRPC's 4 MiB. */
const CHUNK_BYTES = 256 * 1024;
const MOST_BYTES = 256 << 20;
/** Translations kept compiled in this process, used last; 10 to 40 MB each. */
const MOST_LOADED = 3;

/**
 * Static translations in the image-registry. The Wasm in one is run, so only what this host has made is: the blob begins with an
 * HMAC-SHA256 (RFC 2104) of the rest and of the name it is kept under, with a key that never leaves the host.
 */
export class RegistryTranslations implements TranslationStore {
  readonly #images: ImagePort;
  readonly #secret: Buffer;
  readonly #log: Logger;
  readonly #loaded = new Map<string, LoadedTranslation>();

  /** `keyFile` is made when it is not there; empty: a key of this process only. */
  constructor(images: ImagePort, keyFile: string, log: Logger) {
    this.#images = images;
    this.#secret = keyFile === "" ? randomBytes(KEY_BYTES) : readKey(keyFile);
    this.#log = log;
  }

  async find(code: readonly string[]): Promise<LoadedTranslation | undefined> {
    if (code.length === 0) return undefined;
    const key = keyOf(code);
    try {
      const { digest } = await this.#images.findTranslation({ key });
      if (digest === "") return undefined;
      const name = `${key}@${digest}`;
      const loaded = this.#loaded.get(name) ?? { key, modules: decodeAhead(this.#opened(key, await this.#read(digest))) };
      this.#loaded.delete(name);
      this.#loaded.set(name, loaded);
      for (const oldest of this.#loaded.keys()) if (this.#loaded.size > MOST_LOADED) this.#loaded.delete(oldest);
      return loaded;
    } catch (error) {
      this.#log.warn({ key, error: error instanceof Error ? error.message : String(error) }, "static translation is not used");
      return undefined;
    }
  }

  async save(code: readonly string[], recordings: readonly RecordedRegion[]): Promise<SavedTranslation> {
    const key = keyOf(code);
    const { bytes, wasmBytes, regions, modules } = await translated(recordings);
    const sealed = Buffer.concat([this.#seal(key, bytes), bytes]);
    const digest = await this.#write(sealed);
    await this.#images.putTranslation({ key, digest });
    return { key, digest, bytes: BigInt(sealed.length), wasmBytes: BigInt(wasmBytes), regions, modules };
  }

  #seal(key: string, bytes: Uint8Array): Buffer {
    return createHmac("sha256", this.#secret).update(`${key}\0`).update(bytes).digest();
  }
  #opened(key: string, sealed: Uint8Array): Uint8Array {
    const bytes = sealed.subarray(SEAL_BYTES);
    if (sealed.length < SEAL_BYTES || !timingSafeEqual(sealed.subarray(0, SEAL_BYTES), this.#seal(key, bytes))) {
      throw new Error("it was not made on this host for this code; make it anew with hv translate");
    }
    return bytes;
  }

  async #read(digest: string): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const { data } of messages(this.#images.readBlob({ digest, offset: 0n, length: 0n }))) {
      if ((length += data.length) > MOST_BYTES) throw new Error(`it has more than ${MOST_BYTES} bytes`);
      pieces.push(data);
    }
    return Buffer.concat(pieces);
  }
  async #write(data: Uint8Array): Promise<string> {
    const channel = this.#images.writeBlob();
    for (let at = 0; at < data.length; at += CHUNK_BYTES) {
      const end = Math.min(at + CHUNK_BYTES, data.length);
      channel.send({ digest: "", size: at === 0 ? BigInt(data.length) : 0n, data: data.subarray(at, end), finish: end === data.length });
    }
    for await (const { digest } of messages(channel as unknown as Channel<never, WriteBlobResponse>)) return digest;
    throw new ContractError("unavailable", "saveTranslation: the image-registry ended the stream without an answer");
  }
}

/** What a translation is kept under: the code it is for and the translator that made it. */
function keyOf(code: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify([translatorVersion(), ...code])).digest("hex").slice(0, 40);
}

function readKey(file: string): Buffer {
  const read = (): Buffer | undefined => {
    try {
      return readFileSync(file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      return undefined;
    }
  };
  let key = read();
  if (!key) {
    mkdirSync(dirname(file), { recursive: true });
    const draft = `${file}.${randomBytes(6).toString("hex")}`;
    writeFileSync(draft, randomBytes(KEY_BYTES), { mode: 0o600, flag: "wx" });
    try {
      linkSync(draft, file); // whoever comes second takes the first one's
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    } finally {
      unlinkSync(draft);
    }
    key = read();
  }
  if (key?.length !== KEY_BYTES) throw new Error(`${file} should hold ${KEY_BYTES} bytes; remove it, and static translations are made anew`);
  return key;
}

interface Translated {
  readonly bytes: Uint8Array;
  readonly wasmBytes: number;
  readonly regions: number;
  readonly modules: number;
}
/** In a thread of its own: it takes seconds. */
function translated(recordings: readonly RecordedRegion[]): Promise<Translated> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./ahead-worker.ts", import.meta.url), { workerData: { recordings } satisfies AheadJob, execArgv: [], name: "translate-ahead" });
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", (code) => reject(new Error(`the thread that translates ahead ended with ${code}`)));
  });
}
