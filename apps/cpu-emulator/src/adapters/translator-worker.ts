import { setFlagsFromString } from "node:v8";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { fusedArithmetic } from "../core/interpreter/engine.ts";
import type { ReadyBatch } from "../core/translator/engine.ts";
import { translate, type TranslationRequest } from "../core/translator/translate.ts";
import type { TranslatorClient } from "./translator-thread.ts";

/**
 * Entry of a machine's translator thread: takes the requests that wait at a hart's port as one batch, translates and
 * compiles them. A module of one region costs a hart 45 to 73 µs, one of 32 some 2 µs per region.
 */
const memory = workerData as WebAssembly.Memory;
const MOST_IN_BATCH = 48;

parentPort!.on("message", (client: TranslatorClient) => {
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

/**
 * With TurboFan and at once: V8 would otherwise compile with Liftoff at the first call, in the hart's thread. These flags
 * hold for the whole process, so only for as long as the module is made.
 */
function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  setFlagsFromString("--no-wasm-lazy-compilation");
  setFlagsFromString("--no-wasm-dynamic-tiering");
  try {
    return new WebAssembly.Module(bytes);
  } finally {
    setFlagsFromString("--wasm-lazy-compilation");
    setFlagsFromString("--wasm-dynamic-tiering");
  }
}
