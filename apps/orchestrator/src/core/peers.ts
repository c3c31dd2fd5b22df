import type { CpuPort } from "@polyvisor/contracts/cpu";
import type { DevicePort } from "@polyvisor/contracts/device";
import type { ImagePort } from "@polyvisor/contracts/image";
import type { MemoryPort } from "@polyvisor/contracts/memory";
import type { NetworkPort } from "@polyvisor/contracts/network";
import type { ServiceSide } from "@polyvisor/service-kit";

/** The services that the orchestrator commands. */
export interface OrchestratorPeers {
  readonly cpu: CpuPort;
  readonly memory: MemoryPort;
  readonly devices: DevicePort;
  readonly network: NetworkPort;
  readonly images: ImagePort;
  /** By service name as in `apps/`, the orchestrator itself included. */
  readonly services: ReadonlyMap<string, ServiceSide>;
}
