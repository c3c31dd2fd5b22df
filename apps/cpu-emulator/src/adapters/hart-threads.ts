import { Worker } from "node:worker_threads";
import type { EngineName } from "../core/hart-loop.ts";
import type { HartHost, HartThread, HartThreadOptions } from "../core/host.ts";
import { HART_AREA_BASE, HART_AREA_BYTES } from "../core/hart-state.ts";
import type { LoadedTranslation } from "../core/translations.ts";
import type { RecordedRegion } from "../core/translator/ahead/recording.ts";
import { hostMs } from "./host-clock.ts";
import { SpareThread } from "./spare-thread.ts";
import { TranslatorThread, type TranslatorClient, type TranslatorConnection } from "./translator-thread.ts";

/** What a hart's thread is told first. */
export interface HartWorkerData {
  readonly options: HartThreadOptions;
  readonly translator: TranslatorConnection;
}

/** What a hart's thread posts. */
export type HartThreadMessage = { kind: "ready" } | { kind: "report"; events: Record<string, number> } | { kind: "profile"; entries: [number, number][] } | { kind: "recording"; regions: RecordedRegion[] };

/** Harts in worker threads of this process. */
export const hartThreads: HartHost = {
  start: (options) => new WorkerHart(options),
  keepSpare() {
    spareHart0.keep();
    TranslatorThread.spare.keep();
  },
  async dropSpare() {
    await Promise.all([spareHart0.drop(), TranslatorThread.spare.drop()]);
  },
  hostMs,
  turn: () => new Promise((resolve) => setImmediate(resolve)),
  delay: (ms) => new Promise((resolve) => setTimeout(resolve, ms).unref()),
};

// TypeScript runs unbuilt in workers too. V8 flags are process-wide and cannot be given here.
const startThread = (hart: number): Worker =>
  new Worker(new URL("./hart-worker.ts", import.meta.url), { execArgv: [], resourceLimits: { maxYoungGenerationSizeMb: 4 }, name: `hart${hart}` });
const spareHart0 = new SpareThread(() => startThread(0));

const TRANSLATING: ReadonlySet<EngineName> = new Set<EngineName>(["dynamic", "static", "recording"]);

class WorkerHart implements HartThread {
  readonly ready: Promise<void>;
  readonly #worker: Worker;
  #failure: ((reason: string) => void) | undefined;
  #report: ((events: Record<string, number>) => void) | undefined;
  #profile: ((entries: [number, number][]) => void) | undefined;
  #recording: ((regions: RecordedRegion[]) => void) | undefined;
  #translation: LoadedTranslation | undefined;
  readonly #area: number;
  #ended = false;
  readonly #translator: TranslatorThread;
  /** Until the translator has it. */
  #client: TranslatorClient | undefined;

  constructor(options: HartThreadOptions) {
    this.#translator = TranslatorThread.of(options.memory);
    const { client, connection } = TranslatorThread.channel((this.#area = HART_AREA_BASE + options.hart * HART_AREA_BYTES));
    this.#client = client;
    this.prepare(options.engine);
    this.#worker = options.hart === 0 ? spareHart0.take() : startThread(options.hart);
    this.#worker.postMessage({ options, translator: connection } satisfies HartWorkerData, [connection.port]);
    this.ready = new Promise((resolve, reject) => {
      const ended = (reason: string): void => {
        reject(new Error(reason));
        if (this.#ended) return;
        this.#ended = true;
        this.#failure?.(reason);
      };
      this.#worker.on("message", (message: HartThreadMessage) => {
        if (message.kind === "ready") resolve();
        else if (message.kind === "report") this.#report?.(message.events);
        else if (message.kind === "recording") this.#recording?.(message.regions);
        else this.#profile?.(message.entries);
      });
      this.#worker.on("error", (error: Error) => ended(`hart ${options.hart} crashed: ${error?.stack ?? String(error)}`));
      this.#worker.on("exit", (code) => ended(`the thread of hart ${options.hart} ended with code ${code}`));
    });
    this.ready.catch(() => {}); // reported through onFailure as well
  }
  onFailure(listener: (reason: string) => void): void {
    this.#failure = listener;
  }
  onReport(listener: (events: Record<string, number>) => void): void {
    this.#report = listener;
  }
  onProfile(listener: (entries: [number, number][]) => void): void {
    this.#profile = listener;
  }
  onRecording(listener: (regions: RecordedRegion[]) => void): void {
    this.#recording = listener;
  }
  prepare(engine: EngineName): void {
    if (!TRANSLATING.has(engine)) return;
    if (this.#client) this.#translator.connect(this.#client);
    this.#client = undefined;
    this.#load();
  }
  load(translation: LoadedTranslation): void {
    this.#translation = translation;
    this.#load();
  }
  #load(): void {
    if (this.#client || !this.#translation) return;
    this.#translator.load(this.#area, this.#translation);
    this.#translation = undefined;
  }
  async terminate(): Promise<void> {
    this.#ended = true;
    await this.#worker.terminate();
    if (!this.#client) await this.#translator.disconnect();
    else this.#client.port.close();
  }
}
