/**
 * Images of many short random programs (*blocks*) that run on any RV64GC machine: a harness loads all registers of a
 * block, jumps into its code in the block's mode, and stores all registers and the trap that ended it. Two machines
 * agree when they leave the same bytes in the block area.
 */
export declare const RAM = 2147483648;
/** The harness writes DONE_MARK here when all blocks have run (QEMU 7.2 hangs when the test finisher is used under QMP). */
export declare const DONE: number;
export declare const DONE_MARK = 21845;
export interface Mode {
    readonly name: string;
    readonly privilege: 0 | 1 | 3;
    /** Sv39 with random permissions on the data pages. */
    readonly paged: boolean;
    /** As a guest (H): Sv39x4 below, with random permissions too. */
    readonly virtual?: boolean;
}
export declare const MODES: readonly Mode[];
export interface RandomImage {
    readonly bytes: Uint8Array;
    /** Where the results lie, from the start of RAM. */
    readonly resultOffset: number;
    readonly resultBytes: number;
    /** Compares two result areas; a description of the first difference. */
    difference(expected: Uint8Array, actual: Uint8Array): string | undefined;
}
/** xorshift128+-like generator on 32-bit words (sfc32 by Chris Doty-Humphrey): the same numbers everywhere. */
export declare function random(seed: number): () => number;
/** `without`: instructions that the machines to compare are known to disagree on. */
export declare function randomImage(seed: number, count: number, mode: Mode, without?: ReadonlySet<string>): RandomImage;
/** In `without`: faults of accesses to a guest's page tables are not compared. */
export declare const GUEST_TABLE_FAULTS = "guest-table-faults";
