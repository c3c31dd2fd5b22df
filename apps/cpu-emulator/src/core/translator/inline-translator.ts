import type { ReadyAhead, ReadyBatch, Translator } from "./engine.ts";
import { type Batch, translate, type TranslationRequest, type TranslatorOptions } from "./translate.ts";

/** Translates and compiles at once, in the hart's own thread: for tests, and where there is no other thread. */
export class InlineTranslator implements Translator {
  readonly #options: TranslatorOptions;
  readonly #ready: Batch[] = [];
  readonly #ahead: ReadyAhead[] = [];
  constructor(options: TranslatorOptions) {
    this.#options = options;
  }
  request(request: TranslationRequest): void {
    this.#ready.push(translate([request], this.#options));
  }
  ahead(ready: ReadyAhead): void {
    this.#ahead.push(ready);
  }
  poll(): ReadyBatch | ReadyAhead | undefined {
    const ahead = this.#ahead.shift();
    if (ahead) return ahead;
    const batch = this.#ready.shift();
    return batch && { ...batch, module: batch.bytes && new WebAssembly.Module(batch.bytes), bytes: batch.bytes?.length ?? 0, ms: 0 };
  }
}
