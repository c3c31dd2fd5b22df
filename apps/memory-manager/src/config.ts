/** Configuration of the memory-manager. */
export interface MemoryManagerConfig {
  readonly sharedLeases: boolean;
  readonly maxSpaces: number;
  readonly grantPages: number;
  readonly grantDataBytes: number;
  readonly holderTimeoutMs: number;
}

export const DEFAULT_CONFIG: MemoryManagerConfig = {
  sharedLeases: false,
  maxSpaces: 64,
  grantPages: 1024,
  grantDataBytes: 256 * 1024,
  holderTimeoutMs: 10_000,
};
