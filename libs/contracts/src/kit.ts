import { KitServiceService } from "./gen/polyvisor/kit/v1/kit.ts";
import type { Contract } from "./contract.ts";
import type { Port } from "./port.ts";
export * from "./gen/polyvisor/kit/v1/kit.ts";

export const KIT = {
  service: "kit",
  definition: KitServiceService,
  methods: {},
} satisfies Contract<typeof KitServiceService>;
export type KitPort = Port<typeof KitServiceService>;
