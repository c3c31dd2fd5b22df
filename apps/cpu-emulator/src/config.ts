import { defineConfig, integer, path, toggle } from "@polyvisor/service-kit";

/** Configuration of the cpu-emulator. */
export interface CpuEmulatorConfig {
  readonly maxMachines: number;
  readonly maxHarts: number;
  readonly mappedLeases: boolean;
  readonly translationKey: string;
}

export const DEFAULT_CONFIG: CpuEmulatorConfig = { maxMachines: 32, maxHarts: 8, mappedLeases: true, translationKey: "" };

export const CONFIG = defineConfig<CpuEmulatorConfig>({
  maxMachines: { doc: "machines with harts at a time; each hart is a thread", type: integer(1, 4096), default: DEFAULT_CONFIG.maxMachines },
  maxHarts: { doc: "harts of one machine at most", type: integer(1, 8), default: DEFAULT_CONFIG.maxHarts },
  mappedLeases: {
    doc: "accept MAPPED leases of a memory-manager on this host (Linux); off: pages come by message",
    type: toggle,
    default: DEFAULT_CONFIG.mappedLeases,
  },
  translationKey: {
    doc: "file with the secret that seals static translations; made when it is not there. Empty: only those of this process are used",
    type: path,
    default: DEFAULT_CONFIG.translationKey,
  },
});
