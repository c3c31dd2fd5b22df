/** Configuration of the device-bus. */
export interface DeviceBusConfig {
  readonly maxBoards: number;
  /** Output that a console replays to a client that attaches. */
  readonly consoleRingBytes: number;
  /** Input that waits for the guest; more is dropped. */
  readonly consoleInputBytes: number;
}

export const DEFAULT_CONFIG: DeviceBusConfig = {
  maxBoards: 64,
  consoleRingBytes: 64 * 1024,
  consoleInputBytes: 64 * 1024,
};
