import { currentTraceId } from "@polyvisor/contracts/grpc";
import pino, { type Logger } from "pino";
import pretty from "pino-pretty";

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";

/**
 * Logs go to standard error: JSON lines, or readable ones when that is a terminal. Written synchronously, so that the
 * last line before an exit is never lost.
 */
export function createLogger(service: string, level: LogLevel = "info"): Logger {
  const destination = process.stderr.isTTY
    ? pretty({ destination: 2, sync: true, ignore: "pid,hostname,service", messageFormat: "{service}: {msg}" })
    : pino.destination({ dest: 2, sync: true });
  return pino({ level, base: { service, pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime, mixin: traceOf }, destination);
}

/** Lines written while a call is handled carry its W3C trace id, the same in every service that took part. */
function traceOf(): object {
  const traceId = currentTraceId();
  return traceId ? { traceId } : {};
}
