export * from "./docker-registry.ts";
export * from "./run.ts";
export type { DistributionCase, Step } from "./steps.ts";
