import type { RecordedRegion } from "./translator/ahead/recording.ts";
import type { AheadRegion } from "./translator/ahead/translate-ahead.ts";

/** A static translation in this process; the modules are compiled when the first hart wants them, then kept with it. */
export interface LoadedTranslation {
  readonly key: string;
  readonly modules: { readonly bytes: Uint8Array<ArrayBuffer>; readonly regions: readonly AheadRegion[]; module?: WebAssembly.Module }[];
}

export interface SavedTranslation {
  readonly key: string;
  readonly digest: string;
  readonly bytes: bigint;
  readonly wasmBytes: bigint;
  readonly regions: number;
  readonly modules: number;
}

/** Static translations by the code they are for (digests of what a machine starts from). */
export interface TranslationStore {
  /** Undefined: there is none, or none that may be used; why is in the log. Never throws. */
  find(code: readonly string[]): Promise<LoadedTranslation | undefined>;
  save(code: readonly string[], recordings: readonly RecordedRegion[]): Promise<SavedTranslation>;
}
