import { setFlagsFromString } from "node:v8";
import { parentPort, receiveMessageOnPort } from "node:worker_threads";
import { fusedArithmetic } from "../core/interpreter/engine.ts";
import type { ReadyAhead, ReadyBatch } from "../core/translator/engine.ts";
import { translate, type TranslationRequest } from "../core/translator/translate.ts";
import type { CompiledMessage, LoadMessage, MemoryMessage, TranslatorClient } from "./translator-thread.ts";

/**
 * Entry of a machine's translator thread: takes the requests that wait at a hart's port as one batch, translates and
 * compiles them. A module of one region costs a hart 45 to 73 µs, one of 32 some 2 µs per region.
 */
let memory: WebAssembly.Memory;
const MOST_IN_BATCH = 48;

/** By address of the hart's area. */
const ports = new Map<number, TranslatorClient>();

parentPort!.on("message", (message: MemoryMessage | TranslatorClient | LoadMessage) => {
  if ("memory" in message) {
    memory = message.memory;
    return;
  }
  if ("modules" in message) return load(message);
  const client = message;
  ports.set(client.hart, client);
  client.port.on("message", (first: TranslationRequest) => {
    const requests = [first];
    while (requests.length < MOST_IN_BATCH) {
      const more = receiveMessageOnPort(client.port) as { message: TranslationRequest } | undefined;
      if (!more) break;
      requests.push(more.message);
    }
    const begun = performance.now();
    const { bytes, ...batch } = translate(requests, { buffer: memory.buffer, hart: client.hart, fused: fusedArithmetic() });
    const ready: ReadyBatch = { ...batch, module: bytes && compile(bytes), bytes: bytes?.length ?? 0, ms: performance.now() - begun };
    client.port.postMessage(ready);
    Atomics.add(client.ready, 0, 1);
  });
});

/** Regions made ahead: nothing of them is looked at but what they import, which is what every region may. */
function load({ hart, key, modules }: LoadMessage): void {
  const client = ports.get(hart);
  for (const [index, { bytes, regions, module: known }] of modules.entries()) {
    let module = known;
    if (!module) {
      module = compile(bytes);
      checkImports(module);
      parentPort!.postMessage({ key, index, module } satisfies CompiledMessage);
    }
    client?.port.postMessage({ module, ahead: regions } satisfies ReadyAhead);
    if (client) Atomics.add(client.ready, 0, 1);
  }
}
const IMPORTS = ["memory", "regions", "loadSlow", "storeSlow", "translateSlow"];
function checkImports(module: WebAssembly.Module): void {
  const foreign = WebAssembly.Module.imports(module).find(({ module: from, name }) => from !== "engine" || !IMPORTS.includes(name));
  if (foreign) throw new Error(`a static translation imports ${foreign.module}.${foreign.name}`);
}

/**
 * Bytes of Wasm that a function executes before TurboFan compiles it, in V8's own threads. TurboFan needs 0.8 µs per byte (4 ms
 * for an average region), Liftoff 0.04; V8's default is 13,000,000.
 */
const TIERING_BUDGET = 4_000_000;
setFlagsFromString(`--wasm-tiering-budget=${TIERING_BUDGET}`);

/**
 * With Liftoff, here and not at the first call in the hart's thread. The flag holds for the whole process but is only looked
 * at when a module is made. (To switch `--wasm-dynamic-tiering` as well would leave other modules that are just running, the
 * interpreter among them, in Liftoff's slow code for good.)
 */
function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  setFlagsFromString("--no-wasm-lazy-compilation");
  try {
    return new WebAssembly.Module(bytes);
  } finally {
    setFlagsFromString("--wasm-lazy-compilation");
  }
}
