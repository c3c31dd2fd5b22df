import { MessageChannel, Worker, receiveMessageOnPort, type MessagePort } from "node:worker_threads";
import type { LoadedTranslation } from "../core/translations.ts";
import { SpareThread } from "./spare-thread.ts";
import type { ReadyAhead, ReadyBatch, Translator } from "../core/translator/engine.ts";
import type { TranslationRequest } from "../core/translator/translate.ts";

/** To the translator, first: the memory of its machine. */
export interface MemoryMessage {
  readonly memory: WebAssembly.Memory;
}
/** To the translator: modules for the hart at this address; those that are compiled already come with it. */
export interface LoadMessage extends LoadedTranslation {
  readonly hart: number;
}
/** From the translator: it has compiled module `index` of a translation. */
export interface CompiledMessage {
  readonly key: string;
  readonly index: number;
  readonly module: WebAssembly.Module;
}

/** A hart's connection to its machine's translator: the hart's end, and a word that says how many batches wait in it. */
export interface TranslatorConnection {
  readonly port: MessagePort;
  readonly ready: Int32Array<SharedArrayBuffer>;
}
/** The translator's end. */
export interface TranslatorClient extends TranslatorConnection {
  /** Byte address of the hart's area in the machine's memory. */
  readonly hart: number;
}

/** Asks the machine's translator thread, and takes what it made between slices; never waits. */
export class PortTranslator implements Translator {
  readonly #port: MessagePort;
  readonly #ready: Int32Array;
  constructor({ port, ready }: TranslatorConnection) {
    this.#port = port;
    this.#ready = ready;
  }
  request(request: TranslationRequest): void {
    this.#port.postMessage(request);
  }
  poll(): ReadyBatch | ReadyAhead | undefined {
    if (Atomics.load(this.#ready, 0) === 0) return undefined;
    const received = receiveMessageOnPort(this.#port) as { message: ReadyBatch | ReadyAhead } | undefined;
    if (!received) return undefined;
    Atomics.sub(this.#ready, 0, 1);
    return received.message;
  }
}

/** One thread per machine that translates for all its harts; started when the first of them needs it. */
export class TranslatorThread {
  static readonly spare = new SpareThread(
    () => new Worker(new URL("./translator-worker.ts", import.meta.url), { execArgv: [], resourceLimits: { maxYoungGenerationSizeMb: 8 }, name: "translator" }),
  );
  static readonly #threads = new WeakMap<WebAssembly.Memory, TranslatorThread>();
  readonly #memory: WebAssembly.Memory;
  #worker: Worker | undefined;
  #harts = 0;
  readonly #translations = new Map<string, LoadedTranslation>();

  private constructor(memory: WebAssembly.Memory) {
    this.#memory = memory;
  }
  static of(memory: WebAssembly.Memory): TranslatorThread {
    let thread = this.#threads.get(memory);
    if (!thread) this.#threads.set(memory, (thread = new TranslatorThread(memory)));
    return thread;
  }

  /** Both ends of a connection; the hart's end is to be sent to its thread, `connect` takes the other. */
  static channel(hart: number): { client: TranslatorClient; connection: TranslatorConnection } {
    const { port1, port2 } = new MessageChannel();
    const ready = new Int32Array(new SharedArrayBuffer(4));
    return { client: { port: port1, ready, hart }, connection: { port: port2, ready } };
  }

  connect(client: TranslatorClient): void {
    this.#harts++;
    if (!this.#worker) {
      this.#worker = TranslatorThread.spare.take();
      this.#worker.unref();
      this.#worker.postMessage({ memory: this.#memory } satisfies MemoryMessage);
      this.#worker.on("message", ({ key, index, module }: CompiledMessage) => {
        const kept = this.#translations.get(key)?.modules[index];
        if (kept) kept.module = module;
      });
      // Without it everything goes on as it is: interpreted, and translated so far.
      this.#worker.on("error", (error: Error) => process.emitWarning(`translator thread ended, guest code stays interpreted: ${error.stack ?? String(error)}`));
    }
    this.#worker.postMessage(client, [client.port]);
  }
  /** For a hart that is connected. What the thread compiles is kept with the translation. */
  load(hart: number, translation: LoadedTranslation): void {
    this.#translations.set(translation.key, translation);
    this.#worker?.postMessage({ hart, ...translation } satisfies LoadMessage);
  }
  async disconnect(): Promise<void> {
    if (--this.#harts > 0) return;
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }
}
