import { ContractError } from "@polyvisor/contracts";
import { Box, BoxConfig, Descriptor, type ImagePort } from "@polyvisor/contracts/image";
import { MachineState, type OrchestratorPort } from "@polyvisor/contracts/orchestrator";
import { DISK_TYPES, parseReference } from "@polyvisor/image-spec";
import { CliError } from "../cli-error.ts";

const SLOW_CALL_MS = 600_000;

/** A box out of a machine that is not running: its disk as it is now, and the kernel, settings and size that it has. */
export async function packageMachine(orchestrator: OrchestratorPort, images: ImagePort, machineName: string, reference: string): Promise<Box> {
  const { name, tag } = parseReference(reference);
  const machine = (await orchestrator.getMachine({ name: machineName })).machine!;
  const spec = machine.spec!;
  if (![MachineState.HALTED, MachineState.CREATED, MachineState.ABORTED].includes(machine.state as never)) {
    throw new CliError(`machine ${machineName} is running; a box needs a disk at rest: hv halt ${machineName}, then again`);
  }
  const from = spec.box ? (await images.resolveBox({ reference: spec.box })).box : undefined;
  const kernel = spec.kernelDigest || from?.kernel?.digest;
  if (!kernel) throw new CliError(`machine ${machineName} has no kernel that a box could have`);
  const initrd = spec.initrdDigest || (spec.kernelDigest ? "" : from?.initrd?.digest);
  const ownFirmware = spec.firmware === "builtin" || spec.firmware === "none" ? "" : spec.firmware;
  const firmware = ownFirmware || (spec.firmware === "" ? from?.firmware?.digest : "");
  const descriptor = (digest: string | undefined): Descriptor | undefined => (digest ? Descriptor.fromPartial({ digest }) : undefined);

  const id = `${machineName}/disk0`;
  const disk = (await images.listDisks({})).disks.find((each) => each.id === id);
  const committed = disk && (await images.commitDisk({ id, rebase: false, flatten: false }, { timeoutMs: SLOW_CALL_MS })).digest;
  if (!disk && !from) throw new CliError(`machine ${machineName} has never been started and has no box: there is nothing to package`);
  const box = Box.fromPartial({
    name,
    tag: tag ?? "latest",
    kernel: descriptor(kernel),
    initrd: descriptor(initrd),
    firmware: descriptor(firmware),
    disk: committed ? { digest: committed, mediaType: DISK_TYPES.index } : from?.disk,
    config: BoxConfig.fromPartial({
      ...from?.config,
      bootArguments: [from?.config?.bootArguments, spec.bootArguments].filter(Boolean).join(" "),
      memoryBytes: spec.memoryBytes,
      harts: spec.harts,
      diskBytes: disk?.bytes ?? from?.config?.diskBytes ?? 0n,
      description: `${from?.config?.description ?? "a machine"} (packaged from ${machineName})`,
    }),
  });
  await images.putBox({ box });
  const stored = (await images.resolveBox({ reference: `${name}:${tag ?? "latest"}` })).box;
  if (!stored) throw new ContractError("internal", `package ${machineName}: the registry lost the box it just took`);
  return stored;
}
