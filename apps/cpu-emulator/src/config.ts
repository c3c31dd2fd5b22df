/** Configuration of the cpu-emulator. */
export interface CpuEmulatorConfig {
  /** Machines with harts at a time. */
  readonly maxMachines: number;
  /** Harts of one machine at most; the contract says 1 to 8. */
  readonly maxHarts: number;
}

export const DEFAULT_CONFIG: CpuEmulatorConfig = { maxMachines: 32, maxHarts: 8 };
