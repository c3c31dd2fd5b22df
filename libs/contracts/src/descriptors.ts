import { readFileSync } from "node:fs";

/** The google.protobuf.FileDescriptorSet of all contracts; written by `npm run proto`. */
export function readDescriptors(): Uint8Array {
  return readFileSync(new URL("../descriptors.binpb", import.meta.url));
}
