import type { Forward } from "@polyvisor/contracts/network";
import { ForwardSpec } from "@polyvisor/contracts/orchestrator";
import { UsageError } from "../cli-error.ts";
import { parseCount } from "./quantity.ts";

export const FORWARD_HELP = `[ADDRESS:]HOST_PORT:GUEST_PORT[/udp][,auto]: a port of the host that leads to the guest; may be given more than once.
ADDRESS: where to listen (default 127.0.0.1). auto: if HOST_PORT is in use, take the next free one from 2200`;

/** `8080:80`, `0.0.0.0:5353:53/udp`, `[::1]:8080:80,auto` → a forward. */
export function parseForward(text: string): ForwardSpec {
  const match = /^(?:(?<bind>\[[^\]]+\]|[^:[\]]+):)?(?<host>\d+):(?<guest>\d+)(?:\/(?<protocol>[a-z]+))?(?<auto>,auto)?$/.exec(text);
  const { bind = "", host, guest, protocol = "tcp", auto } = match?.groups ?? {};
  if (!match || !["tcp", "udp"].includes(protocol)) throw new UsageError(`--forward "${text}"; expected [ADDRESS:]HOST_PORT:GUEST_PORT[/udp][,auto], such as 8080:80`);
  return ForwardSpec.fromPartial({
    protocol,
    bind: bind.replace(/^\[|\]$/g, ""),
    hostPort: parseCount(host!, `--forward "${text}": host port`, 0, 65_535),
    guestPort: parseCount(guest!, `--forward "${text}": guest port`, 1, 65_535),
    autoCorrect: auto !== undefined,
  });
}
export function forwardRow({ id, machine, port, guestPort, guestAddress, connections, problem }: Forward): string[] {
  return [id, guestAddress ? `${machine} ${guestAddress}` : machine, port, String(guestPort), String(connections), problem];
}
