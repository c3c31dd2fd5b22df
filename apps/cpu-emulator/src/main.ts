import { CPU } from "@polyvisor/contracts/cpu";
import { DEVICE } from "@polyvisor/contracts/device";
import { MEMORY } from "@polyvisor/contracts/memory";
import { defineConfig, integer, runService } from "@polyvisor/service-kit";
import { createService, DEFAULT_CONFIG, type CpuEmulatorConfig } from "./index.ts";

await runService({
  name: CPU.service,
  about: "harts: registers, CSRs, TLBs and the engines that execute guest code",
  config: defineConfig<CpuEmulatorConfig>({
    maxMachines: { doc: "machines with harts at a time", type: integer(1, 1024), default: DEFAULT_CONFIG.maxMachines },
    maxHarts: { doc: "harts of one machine at most", type: integer(1, 8), default: DEFAULT_CONFIG.maxHarts },
  }),
  peers: { memory: MEMORY, devices: DEVICE },
  create: createService,
});
