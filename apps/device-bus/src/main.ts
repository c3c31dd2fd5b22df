import { CPU } from "@polyvisor/contracts/cpu";
import { IMAGE } from "@polyvisor/contracts/image";
import { MEMORY } from "@polyvisor/contracts/memory";
import { NETWORK } from "@polyvisor/contracts/network";
import { runService } from "@polyvisor/service-kit";
import { CONFIG } from "./config.ts";
import { createService } from "./service.ts";

await runService({
  name: "device-bus",
  about: "the boards of machines: address map, interrupt routing, device models",
  config: CONFIG,
  peers: { memory: MEMORY, images: IMAGE, network: NETWORK, cpu: CPU },
  create: createService,
});
