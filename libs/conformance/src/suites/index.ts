import { ContractError } from "@polyvisor/contracts";
import type { ConformanceSuite } from "../suite.ts";

/** The suite of each contract, by service name, loaded when asked for. */
const SUITES: Readonly<Record<string, () => Promise<ConformanceSuite<any>>>> = {
  "cpu-emulator": async () => (await import("./cpu-emulator.ts")).CPU_SUITE,
  "device-bus": async () => (await import("./device-bus.ts")).DEVICE_SUITE,
  "image-registry": async () => (await import("./image-registry.ts")).IMAGE_SUITE,
  "memory-manager": async () => (await import("./memory-manager.ts")).MEMORY_SUITE,
  "network-fabric": async () => (await import("./network-fabric.ts")).NETWORK_SUITE,
  orchestrator: async () => (await import("./orchestrator.ts")).ORCHESTRATOR_SUITE,
};

export const SUITE_NAMES: readonly string[] = Object.keys(SUITES);

export function loadSuite(service: string): Promise<ConformanceSuite<any>> {
  const load = Object.hasOwn(SUITES, service) ? SUITES[service] : undefined;
  if (!load) throw new ContractError("not-found", `there is no conformance suite for "${service}"; there are ${SUITE_NAMES.join(", ")}`);
  return load();
}
