import { IMAGE } from "@polyvisor/contracts/image";
import { runService } from "@polyvisor/service-kit";
import { CONFIG, createService } from "./index.ts";

await runService({
  name: "memory-manager",
  about: "owns guest-physical memory: pages, leases, DMA",
  config: CONFIG,
  peers: { images: IMAGE },
  create: createService,
});
