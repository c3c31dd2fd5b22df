import { asContractError, ContractError, type Channel } from "@polyvisor/contracts";
import { LeaseKind, type LeaseRequest, type LeaseResponse } from "@polyvisor/contracts/memory";
import type { Holder } from "./holder.ts";
import type { Space } from "./space.ts";

export interface LeaseHost {
  /** Throws "not-found". */
  space(operation: string, machine: string): Space;
  leaseLost(space: Space, holder: string, pages: number): void;
}

/** Serves one lease stream. Whatever is wrong with a message ends the stream with an error that says so. */
export function serveLease(channel: Channel<LeaseResponse, LeaseRequest>, host: LeaseHost): void {
  let lease: { space: Space; holder: Holder | undefined } | undefined;
  const handle = ({ machine, message }: LeaseRequest) => {
    if (!lease) {
      if (message?.$case !== "open") throw new ContractError("precondition", "lease: the first message must be `open`");
      lease = open(channel, host, host.space("lease", machine), message.value);
      return;
    }
    const { space, holder } = lease;
    if (!message || message.$case === "open") throw new ContractError("invalid", "lease: already open; send acquire, release or answers");
    if (!holder) throw new ContractError("precondition", `lease: ${message.$case} on a lease that is not COHERENT: it has no page messages`);
    const pages = space.coherent();
    if (message.$case === "acquire") pages.acquire(holder, message.value);
    else if (message.$case === "release") pages.release(holder, message.value);
    else if (message.$case === "recalled") pages.recalled(holder, message.value);
    else pages.accessed(holder, message.value);
  };
  channel.onClose(() => {
    if (!lease) return;
    const { space, holder } = lease;
    const lost = holder ? space.coherent().close(holder) : 0;
    space.leave(channel);
    if (lost > 0 && !space.destroyed) host.leaseLost(space, holder!.name, lost);
  });
  channel.onMessage((request) => {
    if (channel.closed) return;
    try {
      handle(request);
    } catch (error) {
      channel.close(asContractError(error));
    }
  });
}

function open(
  channel: Channel<LeaseResponse, LeaseRequest>,
  host: LeaseHost,
  space: Space,
  request: { holder: string; accepts: readonly LeaseKind[] },
): { space: Space; holder: Holder | undefined } {
  if (space.failed) throw new ContractError("corrupt", `lease: ${space.failed}; destroy the space and create it again`);
  const kind = space.join(channel, request.accepts);
  const { machine, base, bytes } = space.spec;
  const value = { kind, ram: { base, bytes: BigInt(bytes) }, sharedToken: space.tokenOf(kind) };
  if (kind !== LeaseKind.COHERENT) {
    channel.send({ machine, message: { $case: "opened", value } });
    return { space, holder: undefined };
  }
  let holder: Holder;
  try {
    holder = space.openHolder(request.holder, channel);
  } catch (error) {
    space.leave(channel);
    throw error;
  }
  channel.send({ machine, message: { $case: "opened", value } });
  return { space, holder };
}
