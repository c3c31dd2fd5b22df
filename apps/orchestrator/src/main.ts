import { CPU } from "@polyvisor/contracts/cpu";
import { DEVICE } from "@polyvisor/contracts/device";
import { IMAGE } from "@polyvisor/contracts/image";
import { MEMORY } from "@polyvisor/contracts/memory";
import { NETWORK } from "@polyvisor/contracts/network";
import { runService } from "@polyvisor/service-kit";
import { CONFIG, createService } from "./index.ts";

await runService({
  name: "orchestrator",
  about: "owns the desired and observed state of machines; the API that users' programs speak",
  config: CONFIG,
  peers: { cpu: CPU, memory: MEMORY, devices: DEVICE, network: NETWORK, images: IMAGE },
  create: (config, ports, context, services) => createService(config, { ...ports, services }, context),
});
