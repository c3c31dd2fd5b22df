import { MediationServiceService } from "./gen/polyvisor/mediation/v1/mediation.ts";
import type { Contract } from "./contract.ts";
import type { Port } from "./port.ts";
export * from "./gen/polyvisor/mediation/v1/mediation.ts";

export const MEDIATION = {
  service: "mediation",
  definition: MediationServiceService,
  methods: {},
} satisfies Contract<typeof MediationServiceService>;
export type MediationPort = Port<typeof MediationServiceService>;
