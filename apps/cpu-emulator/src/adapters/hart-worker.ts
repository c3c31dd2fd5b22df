import { parentPort } from "node:worker_threads";
import { assembleHart, prepareHart } from "../core/hart.ts";
import type { HartThreadMessage, HartWorkerData } from "./hart-threads.ts";
import { hostMs } from "./host-clock.ts";
import { PortTranslator } from "./translator-thread.ts";

/** Entry of a hart's worker thread. The first message says which hart; then wiring, and the hart loop until it is stopped: it does not return to its event loop before. */
const post = (message: HartThreadMessage): void => parentPort?.postMessage(message);
parentPort!.once("message", ({ options, translator }: HartWorkerData) => {
  const loop = assembleHart(options, {
    hostMs,
    report: (events) => post({ kind: "report", events }),
    profile: (entries) => post({ kind: "profile", entries }),
    recording: (regions) => post({ kind: "recording", regions }),
    translator: new PortTranslator(translator),
  });
  post({ kind: "ready" });
  loop.run();
});
prepareHart(0); // what a spare thread can do already
