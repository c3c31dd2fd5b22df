import type { Implementation, MethodDefinition } from "@polyvisor/contracts";
import type { KIT } from "@polyvisor/contracts/kit";
import type { Clock, RunningService } from "./service.ts";

export interface ServiceIdentity {
  readonly version: string;
  /** gRPC target, or "in-process". */
  readonly address: string;
  readonly pid: number;
}

/** The KitService of one process: who it is, and which methods of its contract it does not implement. */
export function createKitService(
  running: Pick<RunningService<any>, "contract" | "implementation" | "describe">,
  identity: ServiceIdentity,
  clock: Pick<Clock, "monotonic">,
): Implementation<typeof KIT.definition> {
  const started = clock.monotonic();
  return {
    describe: () => ({
      service: running.contract.service,
      version: identity.version,
      pid: identity.pid,
      address: identity.address,
      uptimeMs: BigInt(Math.round(clock.monotonic() - started)),
      unimplemented: unimplementedOf(running),
      facts: new Map(Object.entries(running.describe?.() ?? {})),
    }),
  };
}

/** Full method names, e.g. "polyvisor.cpu.v1.CpuService/SaveHarts". */
export function unimplementedOf({ contract, implementation }: Pick<RunningService<any>, "contract" | "implementation">): string[] {
  return (Object.entries(contract.definition) as [string, MethodDefinition][])
    .filter(([name]) => !implementation[name])
    .map(([, method]) => method.path.slice(1));
}
