import type { CpuFeatures } from "./cpu-features.ts";
import type { RamLayout } from "./physical.ts";
import type { EngineName } from "./hart-loop.ts";
import type { LoadedTranslation } from "./translations.ts";
import type { RecordedRegion } from "./translator/ahead/recording.ts";

/** What the thread of one hart is started with; structured-cloneable. */
export interface HartThreadOptions {
  readonly memory: WebAssembly.Memory;
  readonly hart: number;
  readonly harts: number;
  readonly ram: RamLayout;
  readonly engine: EngineName;
  /** SBI calls are answered by the cpu-emulator. */
  readonly builtinFirmware: boolean;
  /** Virtual time from the hart's instruction count. */
  readonly deterministic: boolean;
  readonly features: CpuFeatures;
}

export interface HartThread {
  /** Resolves once the hart is parked and takes requests; rejects when it cannot start. */
  readonly ready: Promise<void>;
  /** Called at most once, when the thread ends without having been asked to. */
  onFailure(listener: (reason: string) => void): void;
  /** Answers of REPORT requests. */
  onReport(listener: (events: Record<string, number>) => void): void;
  /** Answers of PROFILE requests. */
  onProfile(listener: (entries: [number, number][]) => void): void;
  /** Answers of RECORDING requests. */
  onRecording(listener: (regions: RecordedRegion[]) => void): void;
  /** Gives engine `static` its translation, as soon as that engine is prepared. */
  load(translation: LoadedTranslation): void;
  /** The hart will be asked to change to this engine: starts what that needs. */
  prepare(engine: EngineName): void;
  /** Ends the thread whatever it does. */
  terminate(): Promise<void>;
}

/** The host system, as the hart host needs it; adapters/hart-threads.ts implements it with worker threads. */
export interface HartHost {
  start(options: HartThreadOptions): HartThread;
  /** Soon a machine may start: what its threads can do before is done. Where that makes sense. */
  keepSpare?(): void;
  /** Ends what `keepSpare` started and no machine took. */
  dropSpare?(): Promise<void>;
  /** One monotonic clock, the same in all threads, milliseconds. */
  hostMs(): number;
  /** Lets other work of this thread have its turn. */
  turn(): Promise<void>;
  /** Resolves after `ms`; does not keep the process alive. */
  delay(ms: number): Promise<void>;
}
