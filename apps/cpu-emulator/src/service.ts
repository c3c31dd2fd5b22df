import type { ImagePort } from "@polyvisor/contracts/image";
import { CPU } from "@polyvisor/contracts/cpu";
import { mappedMemoryAbsent, openMappedMemory } from "@polyvisor/mapped-memory";
import type { RunningService, ServiceContext } from "@polyvisor/service-kit";
import { hartThreads } from "./adapters/hart-threads.ts";
import type { CpuEmulatorConfig } from "./config.ts";
import { CpuService } from "./core/cpu-service.ts";
import type { MachinePeers } from "./core/machine.ts";
import { RegistryTranslations } from "./adapters/registry-translations.ts";

/**
 * Starts the service. With `peers.sharedMemory` (same process as the memory-manager) it accepts SHARED page leases, else
 * MAPPED ones where this host can map memory.
 */
export async function createService(
  config: CpuEmulatorConfig,
  peers: MachinePeers & { readonly images?: ImagePort },
  context: ServiceContext,
): Promise<RunningService<typeof CPU.definition>> {
  const maps = config.mappedLeases && !peers.sharedMemory && mappedMemoryAbsent() === undefined;
  const translations = peers.images && new RegistryTranslations(peers.images, config.translationKey, context.log);
  const service = new CpuService(config, { ...(maps && { mapMemory: openMappedMemory }), translations, ...peers }, hartThreads, context);
  return {
    contract: CPU,
    implementation: service.implementation,
    describe: () => service.describe(),
    close: () => service.close(),
  };
}
