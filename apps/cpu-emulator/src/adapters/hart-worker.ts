import { parentPort, workerData } from "node:worker_threads";
import type { HartThreadOptions } from "../core/host.ts";
import { assembleHart } from "../core/hart.ts";
import type { HartThreadMessage } from "./hart-threads.ts";
import { hostMs } from "./host-clock.ts";

/** Entry of a hart's worker thread: wiring, then the hart loop until it is stopped. It never returns to its event loop before. */
const post = (message: HartThreadMessage): void => parentPort?.postMessage(message);
const loop = assembleHart(workerData as HartThreadOptions, { hostMs, report: (events) => post({ kind: "report", events }) });
post({ kind: "ready" });
loop.run();
