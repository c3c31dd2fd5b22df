import { I32, I64, ModuleWriter } from "@polyvisor/wasm-encoder";
import { defineArithmetic, defineMinMax } from "../interpreter/arithmetic.ts";
import type { Helpers } from "../interpreter/frame.ts";
import { REGION_TYPE } from "../interpreter/module.ts";
import { RecordingSource, type RecordedRegion } from "./ahead/recording.ts";
import { type CodeRequest, FrameSource, type SourceDependency } from "./code-source.ts";
import { RegionWriter } from "./lower-region.ts";
import { discover, type RegionLimits } from "./region.ts";

/** What a hart asks a translator for. */
export interface TranslationRequest extends CodeRequest {
  /** The hart's number for this translation: its place in the table of regions. */
  readonly slot: number;
  /** Also answer what it was made from. */
  readonly record?: boolean;
}

export interface TranslatedRegion {
  readonly slot: number;
  /** By selector: frame and halfword of each entry. */
  readonly entries: readonly (readonly [frame: number, index: number])[];
  readonly dependencies: readonly SourceDependency[];
  /** Ways out to code that was cold: frame, halfword, and distance from the region's first instruction. */
  readonly exits: readonly (readonly [frame: number, index: number, distance: number])[];
  readonly instructions: number;
  readonly guestBytes: number;
  readonly recorded?: RecordedRegion;
}

export interface Batch {
  /** Undefined: none of the requests led to code. */
  readonly bytes: Uint8Array<ArrayBuffer> | undefined;
  readonly regions: readonly TranslatedRegion[];
  /** Requests with nothing to translate. */
  readonly refused: readonly number[];
}

export interface TranslatorOptions {
  /** The machine's memory, shared with the hart. */
  readonly buffer: ArrayBufferLike;
  /** Byte address of the hart's area. */
  readonly hart: number;
  readonly fused: { readonly f64: boolean; readonly f32: boolean };
  readonly limits?: RegionLimits;
}

/** A module of regions without regions yet: what they import, and the functions that they share. */
export function regionModule(): { module: ModuleWriter; helpers: Helpers } {
  const module = new ModuleWriter();
  module.importMemory("engine", "memory", { min: 1, max: 65536, shared: true });
  module.importTable("engine", "regions", { min: 0 });
  const helpers: Helpers = {
    loadSlow: module.importFunction("engine", "loadSlow", { parameters: [I64, I32], results: [I64] }),
    storeSlow: module.importFunction("engine", "storeSlow", { parameters: [I64, I64, I32], results: [I32] }),
    translateSlow: module.importFunction("engine", "translateSlow", { parameters: [I64, I32], results: [I32] }),
    arithmetic: defineArithmetic(module),
    minMax: defineMinMax(module),
  };
  return { module, helpers };
}

/** Translates a batch of requests of one hart into one module, which puts its functions into the table of regions itself. */
export function translate(requests: readonly TranslationRequest[], { buffer, hart, fused, limits }: TranslatorOptions): Batch {
  const { module, helpers } = regionModule();
  const regions: TranslatedRegion[] = [];
  const refused: number[] = [];
  for (const request of requests) {
    const frames = new FrameSource(buffer, hart, request);
    const source = request.record ? new RecordingSource(frames) : frames;
    const region = discover(source, request.index * 2, limits);
    if (!region) {
      refused.push(request.slot);
      continue;
    }
    const f = module.function(`region_${request.pc.toString(16)}`, REGION_TYPE);
    new RegionWriter(module, f.code, region, source, { hart, fused, helpers }).write();
    module.elements(request.slot, [f]);
    const place = (offset: number): [number, number] => [source.frame(offset), (offset & 0xfff) >> 1];
    regions.push({
      slot: request.slot,
      entries: region.entries.map(({ offset }) => place(offset)),
      dependencies: frames.dependencies,
      exits: region.exits.map((offset) => [...place(offset), offset - request.index * 2] as const),
      instructions: region.instructions,
      guestBytes: region.blocks.reduce((sum, block) => sum + block.instructions.reduce((bytes, { length }) => bytes + length, 0), 0),
      ...(source instanceof RecordingSource && { recorded: source.recorded(request.index * 2) }),
    });
  }
  return { bytes: regions.length > 0 ? module.finish() : undefined, regions, refused };
}
