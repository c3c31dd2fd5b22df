import { ContractError } from "@polyvisor/contracts";

/** What of the architecture differs from machine to machine (CreateHarts `cpu`). */
export interface CpuFeatures {
  /** The H extension: HS-mode, guests, two-stage translation. */
  readonly hypervisor: boolean;
  /** The largest page-table format. Linux takes the largest, and each level makes a TLB miss dearer. */
  readonly paging: "sv39" | "sv48" | "sv57";
}
export const DEFAULT_FEATURES: CpuFeatures = { hypervisor: true, paging: "sv48" };

/** MODE of satp and hgatp. */
export const PAGING_MODE = { sv39: 8n, sv48: 9n, sv57: 10n } as const;

/** Reads "h=off,mmu=sv57"; empty: the defaults. */
export function parseCpuFeatures(text: string): CpuFeatures {
  const bad = (part: string): never => {
    throw new ContractError("invalid", `cpu feature ${JSON.stringify(part)}; expected h=on, h=off, mmu=sv39, mmu=sv48 or mmu=sv57, separated by commas`);
  };
  let features = DEFAULT_FEATURES;
  for (const part of text.split(",").map((each) => each.trim()).filter((each) => each !== "")) {
    const [name, value] = part.split("=");
    if (name === "h" && (value === "on" || value === "off")) features = { ...features, hypervisor: value === "on" };
    else if (name === "mmu" && (value === "sv39" || value === "sv48" || value === "sv57")) features = { ...features, paging: value };
    else bad(part);
  }
  return features;
}
