import { HartCells, MachineCells } from "./cells.ts";
import { Clint } from "./clint.ts";
import { HartDebug } from "./debug/hart-debug.ts";
import type { Engine } from "./engine.ts";
import { GuestTime } from "./guest-time.ts";
import { HART_AREA_BASE, HART_AREA_BYTES } from "./hart-state.ts";
import { createInterpreter, prepareInterpreter, type InterpreterEngine } from "./interpreter/engine.ts";
import { HartLoop, type EngineName } from "./hart-loop.ts";
import type { HartThreadOptions } from "./host.ts";
import { HartMailbox } from "./mailbox.ts";
import { Mmu } from "./mmu.ts";
import { HartPhysical } from "./physical.ts";
import { Privileged } from "./privileged.ts";
import { ReferenceEngine } from "./reference-engine.ts";
import { supervisorCalls } from "./sbi/sbi.ts";
import { Settling } from "./settling.ts";
import type { RecordedRegion } from "./translator/ahead/recording.ts";
import { ModeEngine } from "./translator/ahead/mode-engine.ts";
import { DynamicEngine, HOT_AFTER, type Translator } from "./translator/engine.ts";

export interface HartSurroundings {
  hostMs(): number;
  report(events: Record<string, number>): void;
  profile(entries: [number, number][]): void;
  recording(regions: RecordedRegion[]): void;
  readonly translator: Translator;
}

/** Before it is known what machine it will be in: compiles what the default engine of a hart needs. */
export function prepareHart(hart: number): void {
  prepareInterpreter(HART_AREA_BASE + hart * HART_AREA_BYTES, HOT_AFTER);
}

/** Puts the parts of one hart together, in its own thread: the list to read the hart's files by. */
export function assembleHart(options: HartThreadOptions, surroundings: HartSurroundings): HartLoop {
  const { memory, ram } = options;
  const harts = Array.from({ length: options.harts }, (_, hart) => new HartCells(memory.buffer, hart));
  const cells = harts[options.hart]!;
  const machine = new MachineCells(memory.buffer);
  const time = new GuestTime(machine, () => surroundings.hostMs(), options.deterministic ? cells : undefined);
  const core = new Privileged(cells, time, options.features);
  const mailbox = new HartMailbox(cells, machine);
  const settling = options.deterministic ? new Settling(mailbox) : undefined;
  const physical = new HartPhysical(ram, cells, mailbox, new Clint(harts, core, time), settling);
  const mmu = new Mmu({ memory, cells, core, physical, ramBase: Number(ram.base), ramBytes: ram.bytes, ramOffset: ram.offset });
  core.translation = mmu;
  const debug = new HartDebug(cells, mmu);
  core.debugger = debug;

  const createEngine = (name: EngineName, engine: (name: EngineName) => Engine): Engine => {
    switch (name) {
      case "reference": return new ReferenceEngine({ memory, cells, core, physical, mmu });
      case "interpreter":
        return createInterpreter({
          memory, hart: options.hart, ramBase: Number(ram.base), ramBytes: ram.bytes, ramOffset: ram.offset, core, physical, mmu,
        });
      case "dynamic":
        return new DynamicEngine({ cells, memory, interpreter: engine("interpreter") as InterpreterEngine, translator: surroundings.translator });
      case "static": case "recording": return new ModeEngine(name, engine("dynamic") as DynamicEngine);
    }
  };
  const loop = new HartLoop({
    cells, core, time, mailbox, debug, settling, engine: options.engine, createEngine,
    report: (events) => surroundings.report(events),
    profile: (entries) => surroundings.profile(entries),
    recording: (regions) => surroundings.recording(regions),
  });
  if (options.builtinFirmware) {
    core.supervisorCalls = supervisorCalls({
      core, harts, mailbox, memory: physical, fenceI: () => loop.fenceI(), flushTlb: () => loop.flushTlb(),
    });
  }
  return loop;
}
