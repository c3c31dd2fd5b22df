import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { assemble } from "@polyvisor/isa";
import { ADDRESS_MAP, KERNEL_OFFSET, TIMEBASE_HZ } from "@polyvisor/machine";
import { writeResult, type BuildOptions, type BuiltBox } from "../built-box.ts";

const SOURCE = new URL("./tiny.s", import.meta.url);
/** Between two of its timer interrupts. */
const TICK_MS = 20;

/** The program as a boot image; position-independent, so that it runs wherever it is loaded. */
export function assembleTiny(): Uint8Array {
  const source = readFileSync(SOURCE, "utf8");
  const base = ADDRESS_MAP.ram.base + KERNEL_OFFSET;
  const symbols = {
    UART: ADDRESS_MAP.uart.base,
    FINISHER: ADDRESS_MAP.testFinisher.base,
    TICK: BigInt((TIMEBASE_HZ * TICK_MS) / 1000),
  };
  // The header holds the image's size: assembled once to know it, then with it.
  const { bytes } = assemble(source, { base, symbols: { ...symbols, IMAGE_BYTES: 0n } });
  return assemble(source, { base, symbols: { ...symbols, IMAGE_BYTES: BigInt(bytes.length) } }).bytes;
}

export function tinyKey(): string {
  return createHash("sha256").update(assembleTiny()).digest("hex").slice(0, 16);
}

/** A guest that needs no download: libs/isa's assembler makes it out of tiny.s. */
export async function buildTiny(options: BuildOptions, out: string): Promise<Omit<BuiltBox, "fromCache">> {
  options.onProgress?.({ step: "assemble" });
  const kernel = writeResult(join(out, "Image"), assembleTiny());
  return {
    name: "tiny",
    tag: "1",
    kernel,
    config: {
      bootArguments: "",
      memoryBytes: 16n * 1024n * 1024n,
      harts: 1,
      diskBytes: 0n,
      agentConsole: "",
      description: "a program of our own: prints, takes traps and timer interrupts, powers off",
    },
    sources: { "tiny.s": createHash("sha256").update(readFileSync(SOURCE)).digest("hex") },
  };
}
