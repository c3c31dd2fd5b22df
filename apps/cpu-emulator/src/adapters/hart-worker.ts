import { parentPort, workerData } from "node:worker_threads";
import { assembleHart } from "../core/hart.ts";
import type { HartThreadMessage, HartWorkerData } from "./hart-threads.ts";
import { hostMs } from "./host-clock.ts";
import { PortTranslator } from "./translator-thread.ts";

/** Entry of a hart's worker thread: wiring, then the hart loop until it is stopped. It never returns to its event loop before. */
const post = (message: HartThreadMessage): void => parentPort?.postMessage(message);
const { options, translator } = workerData as HartWorkerData;
const loop = assembleHart(options, {
  hostMs,
  report: (events) => post({ kind: "report", events }),
  profile: (entries) => post({ kind: "profile", entries }),
  recording: (regions) => post({ kind: "recording", regions }),
  translator: new PortTranslator(translator),
});
post({ kind: "ready" });
loop.run();
