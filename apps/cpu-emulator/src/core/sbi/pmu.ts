import { COUNTER_NUMBERS, inhibit, selectEvent, setCounter } from "../counters.ts";
import { Csr } from "../csr.ts";
import { hpmEvent } from "../hpm-events.ts";
import type { Privileged } from "../privileged.ts";
import { SbiError, type SbiExtension, type SbiResult } from "./extension.ts";

/**
 * Performance Monitoring Unit (SBI 2.0, chapter 11): cycle, instret and the hpm counters; one that mcountinhibit stops is
 * stopped. There are no firmware counters and no snapshots, and nothing filters by mode: those flags are hints.
 */
const NUMBERS = COUNTER_NUMBERS; // a counter_idx is a place in this list
const IR = 2;
/** counter_info: bits 11:0 the CSR, 17:12 the width less one, 63 set for firmware counters. */
const info = (n: number): bigint => BigInt(Csr.CYCLE + n) | (63n << 12n);

const Config = { SKIP_MATCH: 1n, CLEAR_VALUE: 2n, AUTO_START: 4n } as const;
const Start = { INIT_VALUE: 1n, INIT_SNAPSHOT: 2n } as const;
const Stop = { RESET: 1n, TAKE_SNAPSHOT: 2n } as const;
const EventType = { HARDWARE: 0n, CACHE: 1n, RAW: 2n } as const;

const running = (hart: Privileged, n: number): boolean => ((hart.cells.csr32(Csr.MCOUNTINHIBIT) >>> n) & 1) === 0;
function run(hart: Privileged, n: number, on: boolean): void {
  const stopped = hart.cells.csr32(Csr.MCOUNTINHIBIT);
  inhibit(hart, on ? stopped & ~(1 << n) : stopped | (1 << n));
}

/** Counters of (base, mask) as numbers of CSRs; undefined: one that does not exist. */
function selected(base: bigint, mask: bigint): number[] | undefined {
  const numbers: number[] = [];
  for (let bit = 0n; mask >> bit !== 0n; bit++) {
    if (!((mask >> bit) & 1n)) continue;
    const n = base + bit < 32n ? NUMBERS[Number(base + bit)] : undefined;
    if (n === undefined) return undefined;
    numbers.push(n);
  }
  return numbers;
}

/** Value for mhpmevent of an event that a counter can look at. */
function eventNumber(index: bigint, data: bigint): bigint | undefined {
  const type = (index >> 16n) & 0xfn;
  if (index >> 20n !== 0n) return undefined;
  const number = type === EventType.HARDWARE || type === EventType.CACHE ? index : type === EventType.RAW && index === 0x2_0000n ? data : 0n;
  return hpmEvent(number) ? number : undefined;
}

function configure(hart: Privileged, [base, mask, flags, index, data]: readonly bigint[]): SbiResult {
  const numbers = selected(base!, mask!);
  if (!numbers || numbers.length === 0) return { error: SbiError.INVALID_PARAM };
  const event = eventNumber(BigInt.asUintN(32, index!), data!);
  // cycle and instret have their event; the others take any. With SKIP_MATCH the caller has chosen: the event is as it was.
  const fits = (n: number): boolean => (n > IR ? event !== undefined : event === (n === IR ? 2n : 1n));
  const skip = (flags! & Config.SKIP_MATCH) !== 0n;
  const n = skip ? numbers[0] : numbers.find((each) => fits(each) && !running(hart, each)) ?? numbers.find((each) => fits(each));
  if (n === undefined) return { error: SbiError.NOT_SUPPORTED };
  if (!skip && n > IR) selectEvent(hart, n, event!);
  if (flags! & Config.CLEAR_VALUE) setCounter(hart, n, 0n);
  if (flags! & Config.AUTO_START) run(hart, n, true);
  return { error: 0n, value: BigInt(NUMBERS.indexOf(n)) };
}

function start(hart: Privileged, [base, mask, flags, value]: readonly bigint[]): SbiResult {
  const numbers = selected(base!, mask!);
  if (!numbers || flags! & ~(Start.INIT_VALUE | Start.INIT_SNAPSHOT)) return { error: SbiError.INVALID_PARAM };
  if (flags! & Start.INIT_SNAPSHOT) return { error: SbiError.NO_SHMEM };
  let error: bigint = SbiError.SUCCESS;
  for (const n of numbers) {
    if (running(hart, n)) {
      error = SbiError.ALREADY_STARTED;
      continue;
    }
    if (flags! & Start.INIT_VALUE) setCounter(hart, n, value!);
    run(hart, n, true);
  }
  return { error };
}

function stop(hart: Privileged, [base, mask, flags]: readonly bigint[]): SbiResult {
  const numbers = selected(base!, mask!);
  if (!numbers || flags! & ~(Stop.RESET | Stop.TAKE_SNAPSHOT)) return { error: SbiError.INVALID_PARAM };
  if (flags! & Stop.TAKE_SNAPSHOT) return { error: SbiError.NO_SHMEM };
  let error: bigint = SbiError.SUCCESS;
  for (const n of numbers) {
    if (running(hart, n)) run(hart, n, false);
    else error = SbiError.ALREADY_STOPPED;
    if (flags! & Stop.RESET && n > IR) selectEvent(hart, n, 0n);
  }
  return { error };
}

export const performanceMonitoring: SbiExtension = {
  id: 0x50_4d55,
  counts: "sbi-pmu",
  call({ core }, fid, args) {
    switch (fid) {
      case 0: return { error: 0n, value: BigInt(NUMBERS.length) };
      case 1: {
        const n = args[0]! < 32n ? NUMBERS[Number(args[0]!)] : undefined;
        return n === undefined ? { error: SbiError.INVALID_PARAM } : { error: 0n, value: info(n) };
      }
      case 2: return configure(core, args);
      case 3: return start(core, args);
      case 4: return stop(core, args);
      case 5: case 6: return { error: SbiError.INVALID_PARAM }; // counter_fw_read, and its high half: not of these counters
      case 7: return { error: SbiError.NOT_SUPPORTED }; // snapshot_set_shmem
      default: return undefined;
    }
  },
};
