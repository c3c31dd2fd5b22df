import { IP_PROTOCOL, UNREACHABLE_CODE } from "@polyvisor/wire";
import type { NatBackendFactory } from "./nat-backend.ts";

/**
 * A NAT with no way out: connections are reset and everything else is administratively prohibited, so that programs
 * fail at once instead of waiting.
 */
export const refusingNat: NatBackendFactory = (guest) => ({
  outbound(packet) {
    if (packet.protocol === IP_PROTOCOL.TCP) guest.reset(packet);
    else guest.unreachable(packet, UNREACHABLE_CODE.ADMINISTRATIVELY);
  },
  close() {},
});
