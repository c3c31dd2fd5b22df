import { defineConfig, integer } from "@polyvisor/service-kit";

/** Configuration of the device-bus. */
export interface DeviceBusConfig {
  readonly maxBoards: number;
  readonly consoleRingBytes: number;
  readonly consoleInputBytes: number;
}

export const DEFAULT_CONFIG: DeviceBusConfig = {
  maxBoards: 64,
  consoleRingBytes: 64 * 1024,
  consoleInputBytes: 64 * 1024,
};

export const CONFIG = defineConfig<DeviceBusConfig>({
  maxBoards: { doc: "boards at a time", type: integer(1, 4096), default: DEFAULT_CONFIG.maxBoards },
  consoleRingBytes: {
    doc: "output that a console replays to a client that attaches",
    type: integer(1024, 16 * 1024 * 1024),
    default: DEFAULT_CONFIG.consoleRingBytes,
  },
  consoleInputBytes: {
    doc: "console input that waits for the guest; more is dropped",
    type: integer(1024, 16 * 1024 * 1024),
    default: DEFAULT_CONFIG.consoleInputBytes,
  },
});
