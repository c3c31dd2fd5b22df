import { NetworkServiceService } from "./gen/polyvisor/network/v1/network.ts";
import type { Contract } from "./contract.ts";
import type { FrameBatch } from "./gen/polyvisor/network/v1/network.ts";
import type { Port } from "./port.ts";
export * from "./gen/polyvisor/network/v1/network.ts";

const LOST_FRAME = { data: new Uint8Array(0), offload: undefined };

export const NETWORK = {
  service: "network-fabric",
  definition: NetworkServiceService,
  // A denied batch of frames is lost, as on a wire; what it says of credit and the link still arrives (NET-5).
  methods: { frames: { plane: "frames", lost: (batch: FrameBatch): FrameBatch => ({ ...batch, frames: batch.frames.map(() => LOST_FRAME) }) } },
} satisfies Contract<typeof NetworkServiceService>;
export type NetworkPort = Port<typeof NetworkServiceService>;
