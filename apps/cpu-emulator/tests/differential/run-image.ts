import { BareMachine, type BareEngine } from "../../src/core/interpreter/bare-machine.ts";
import { DEFAULT_FEATURES } from "../../src/core/cpu-features.ts";
import { DONE, DONE_MARK, type RandomImage } from "./random-program.ts";

/** Runs an image on one of our engines and answers its result area. Engine `static` gets what a run with `recording` wrote down. */
export function runImage(image: Pick<RandomImage, "bytes" | "resultOffset" | "resultBytes">, engine: BareEngine, slice = 1_000_000, limit = 50_000_000): Uint8Array {
  const start = (what: BareEngine): BareMachine => {
    const made = new BareMachine(64 << 20, what, undefined, { features: { ...DEFAULT_FEATURES, paging: "sv57" } });
    made.ram.set(image.bytes);
    return made;
  };
  const machine = start(engine);
  if (engine === "static") {
    const recorder = start("recording");
    recorder.run(limit, slice);
    machine.ahead(recorder.hot!.recorded);
  }
  const why = machine.run(limit, slice);
  if (why !== "wfi" || machine.word(DONE) !== BigInt(DONE_MARK)) {
    throw new Error(`${engine}: the harness did not end (${why}, pc 0x${machine.pc.toString(16)}, traps ${machine.traps.length})`);
  }
  return machine.ram.slice(image.resultOffset, image.resultOffset + image.resultBytes);
}
