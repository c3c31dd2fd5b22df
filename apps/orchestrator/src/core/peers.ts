import type { CpuPort } from "@polyvisor/contracts/cpu";
import type { DevicePort } from "@polyvisor/contracts/device";
import type { ImagePort } from "@polyvisor/contracts/image";
import type { KitPort } from "@polyvisor/contracts/kit";
import type { MediationPort } from "@polyvisor/contracts/mediation";
import type { MemoryPort } from "@polyvisor/contracts/memory";
import type { NetworkPort } from "@polyvisor/contracts/network";

/** What every Polyvisor process serves beside its own contract. */
export interface ServiceSide {
  /** gRPC target, or "in-process"; shown by ListServices also while the service is unreachable. */
  readonly address: string;
  readonly mediation: MediationPort;
  readonly kit: KitPort;
}

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
