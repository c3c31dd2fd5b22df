import { CPU } from "@polyvisor/contracts/cpu";
import type { RunningService, ServiceContext } from "@polyvisor/service-kit";
import { hartThreads } from "./adapters/hart-threads.ts";
import type { CpuEmulatorConfig } from "./config.ts";
import { CpuService } from "./core/cpu-service.ts";
import type { MachinePeers } from "./core/machine.ts";

/** Starts the service. With `peers.sharedMemory` (same process as the memory-manager) it accepts SHARED page leases. */
export async function createService(
  config: CpuEmulatorConfig,
  peers: MachinePeers,
  context: ServiceContext,
): Promise<RunningService<typeof CPU.definition>> {
  const service = new CpuService(config, peers, hartThreads, context);
  return {
    contract: CPU,
    implementation: service.implementation,
    describe: () => service.describe(),
    close: () => service.close(),
  };
}
