import { SCRATCH } from "../hart-state.ts";

/** Words between generated code and its slow paths, offsets in the hart area. */
export const ACCESS_ADDRESS = SCRATCH; // i64
export const ACCESS_VALUE = SCRATCH + 8; // i64
export const ACCESS_FAULT = SCRATCH + 16; // i32: 1 = trap

export const ACCESS_PLACE = SCRATCH + 20; // i32: with DIRECT, where in linear memory the access goes

/** Answers of slow accesses: done, trap, or: do it at ACCESS_PLACE. */
export const DONE = 0;
export const TRAPPED = 1;
export const DIRECT = 2;

/** Kinds of slow accesses: log2 of the byte count, and flags. */
export const KIND_SIZE = 3;
export const KIND_SIGNED = 4;
/** translateSlow: for reading (lr); without it for writing (sc, amo). */
export const KIND_READ = 8;

/** How translated code came back to the interpreter. */
export const REGION_EXIT = SCRATCH + 24; // i32
export const REGION_WORD = SCRATCH + 28; // i32: with SLOW, the instruction
export const RegionExit = {
  /** Go on at PC. */
  GO_ON: 0,
  /** TRAP_CAUSE and TRAP_VALUE are set for the instruction at PC. */
  TRAP: 1,
  /** TypeScript executes REGION_WORD at PC. */
  SLOW: 2,
} as const;

/** i64: instructions retired in translated code, and how often it came back to the interpreter. */
export const TRANSLATED_COUNT = SCRATCH + 32;
export const TRANSLATED_RETURNS = SCRATCH + 40;
