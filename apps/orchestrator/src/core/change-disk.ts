import { asContractError, ContractError } from "@polyvisor/contracts";
import { Disk } from "@polyvisor/contracts/image";
import { diskId } from "./boot-plan.ts";
import type { Machine } from "./machine.ts";
import type { OrchestratorPeers } from "./peers.ts";

export type DiskChange =
  | { readonly kind: "resize"; readonly bytes: bigint; readonly mayShrink: boolean }
  | { readonly kind: "replace"; readonly digest: string; readonly mediaType: string; readonly bytes: bigint };

/** Changes the disk of a machine that does not run. */
export function changeDisk({ images }: OrchestratorPeers, machine: Machine, change: DiskChange): Promise<void> {
  return machine.hold("change", { mayRun: false }, async (record) => {
    if (change.kind === "resize") {
      if (!record.disk) throw new ContractError("precondition", `machine ${machine.name} has no disk yet; it is made at the first start: hv up ${machine.name}`);
      await images.resizeDisk({ id: record.disk.id, bytes: change.bytes, mayShrink: change.mayShrink });
      record.disk = { ...record.disk, bytes: change.bytes };
      return;
    }
    const wanted = { id: diskId(machine.name), baseDigest: change.digest, baseMediaType: change.mediaType, bytes: change.bytes };
    // Made under another name first: a base that is refused must not cost the old disk.
    const trial = { ...wanted, id: `${machine.name}/replacing` };
    await images.createDisk({ disk: Disk.fromPartial(trial) }, { timeoutMs: 120_000 });
    try {
      await images.deleteDisk({ id: wanted.id }).catch((error: unknown) => {
        if (asContractError(error).condition !== "not-found") throw error;
      });
      await images.createDisk({ disk: Disk.fromPartial(wanted) }, { timeoutMs: 120_000 });
    } finally {
      await images.deleteDisk({ id: trial.id });
    }
    record.disk = wanted;
  });
}
