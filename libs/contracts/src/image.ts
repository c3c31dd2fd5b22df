import { BlockStatus, ImageServiceService } from "./gen/polyvisor/image/v1/image.ts";
import type { BlockRequest, BlockResponse } from "./gen/polyvisor/image/v1/image.ts";
import type { Contract } from "./contract.ts";
import type { Port } from "./port.ts";
export * from "./gen/polyvisor/image/v1/image.ts";

export const IMAGE = {
  service: "image-registry",
  definition: ImageServiceService,
  methods: {
    blocks: {
      plane: "blocks",
      // A denied block operation is a medium error.
      deniedRequest: (request: BlockRequest): BlockResponse => ioError(request),
      deniedResponse: (response: BlockResponse): BlockResponse => ioError(response),
    },
  },
} satisfies Contract<typeof ImageServiceService>;
export type ImagePort = Port<typeof ImageServiceService>;

function ioError(block: { machine: string; disk: string; id: bigint }): BlockResponse {
  return {
    machine: block.machine,
    disk: block.disk,
    id: block.id,
    status: BlockStatus.IO_ERROR,
    data: new Uint8Array(0),
    diskBytes: 0n,
  };
}
