import { DeviceServiceService, ExitStatus } from "./gen/polyvisor/device/v1/device.ts";
import type { ExitRequest, ExitResponse } from "./gen/polyvisor/device/v1/device.ts";
import type { Contract } from "./contract.ts";
import type { Port } from "./port.ts";
export * from "./gen/polyvisor/device/v1/device.ts";

export const DEVICE = {
  service: "device-bus",
  definition: DeviceServiceService,
  methods: {
    exits: {
      plane: "exits",
      urgent: true,
      // A denied read is a bus error; a denied posted write vanishes, as on a bus that answers nobody.
      deniedRequest: (request: ExitRequest): ExitResponse | null =>
        request.exit?.$case === "mmioRead" || request.exit?.$case === "consoleRead" ? fault(request) : null,
      deniedResponse: (response: ExitResponse): ExitResponse => fault(response),
    },
    console: { plane: "console" },
  },
} satisfies Contract<typeof DeviceServiceService>;
export type DevicePort = Port<typeof DeviceServiceService>;

function fault(exit: { machine: string; hart: number; id: bigint }): ExitResponse {
  return {
    machine: exit.machine,
    hart: exit.hart,
    id: exit.id,
    status: ExitStatus.ACCESS_FAULT,
    value: 0n,
    data: new Uint8Array(0),
  };
}
