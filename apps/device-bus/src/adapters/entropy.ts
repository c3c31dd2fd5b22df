import { randomFillSync } from "node:crypto";

/** The host's entropy, for virtio-rng and the device tree's rng-seed. */
export function hostEntropy(byteLength: number): Uint8Array {
  return randomFillSync(new Uint8Array(byteLength));
}
