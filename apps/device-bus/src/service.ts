import { DEVICE } from "@polyvisor/contracts/device";
import type { RunningService, ServiceContext } from "@polyvisor/service-kit";
import { hostEntropy } from "./adapters/entropy.ts";
import type { DeviceBusConfig } from "./config.ts";
import type { DevicePeers } from "./core/board.ts";
import { DeviceService } from "./core/device-service.ts";

/** Starts the device-bus in this process. Peers are called when a board is created, not before. */
export async function createService(
  config: DeviceBusConfig,
  peers: DevicePeers,
  context: ServiceContext,
): Promise<RunningService<(typeof DEVICE)["definition"]>> {
  const service = new DeviceService(
    {
      peers,
      clock: context.clock,
      afterTurn: (run) => void setImmediate(run),
      random: hostEntropy,
      log: context.log,
      fact: (machine, fact, data) => context.events.publish({ machine, service: DEVICE.service, fact, data }),
      consoleRingBytes: config.consoleRingBytes,
      consoleInputBytes: config.consoleInputBytes,
    },
    config.maxBoards,
  );
  return {
    contract: DEVICE,
    implementation: service.implementation,
    describe: () => ({ boards: String(service.boards), devices: "ns16550a plic goldfish-rtc test-finisher virtio-{blk,net,console,rng}" }),
    close: () => service.close(),
  };
}
