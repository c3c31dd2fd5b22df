import type { Engine, ExitReason } from "../../engine.ts";
import type { DynamicEngine, DynamicMode } from "../engine.ts";

/** Engines `static` and `recording`: engine `dynamic` asked to be that. Fences, flushes and numbers are the dynamic engine's own. */
export class ModeEngine implements Engine {
  readonly name: DynamicMode;
  readonly #dynamic: DynamicEngine;
  constructor(name: DynamicMode, dynamic: DynamicEngine) {
    this.name = name;
    this.#dynamic = dynamic;
  }
  run(budget: number): ExitReason {
    this.#dynamic.become(this.name);
    return this.#dynamic.runMode(budget);
  }
  fenceI(): void {}
  flushTlb(): void {}
  leave(): void {
    this.#dynamic.leave();
  }
  events(): Record<string, number> {
    return {};
  }
}
