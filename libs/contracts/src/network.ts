import { NetworkServiceService } from "./gen/polyvisor/network/v1/network.ts";
import type { Contract } from "./contract.ts";
import type { Port } from "./port.ts";
export * from "./gen/polyvisor/network/v1/network.ts";

export const NETWORK = {
  service: "network-fabric",
  definition: NetworkServiceService,
  // A denied batch of frames is lost, as on a wire.
  methods: { frames: { plane: "frames" } },
} satisfies Contract<typeof NetworkServiceService>;
export type NetworkPort = Port<typeof NetworkServiceService>;
