import { CpuServiceService } from "./gen/polyvisor/cpu/v1/cpu.ts";
import type { Contract } from "./contract.ts";
import type { Port } from "./port.ts";
export * from "./gen/polyvisor/cpu/v1/cpu.ts";

export const CPU = {
  service: "cpu-emulator",
  definition: CpuServiceService,
  methods: { interrupts: { plane: "interrupts" } },
} satisfies Contract<typeof CpuServiceService>;
export type CpuPort = Port<typeof CpuServiceService>;
