import { DEVICE } from "@polyvisor/contracts/device";
import { IMAGE } from "@polyvisor/contracts/image";
import { MEMORY } from "@polyvisor/contracts/memory";
import { runService } from "@polyvisor/service-kit";
import { CONFIG, createService } from "./index.ts";

await runService({
  name: "cpu-emulator",
  about: "owns harts: registers, CSRs, translation, engines, the built-in firmware",
  config: CONFIG,
  peers: { memory: MEMORY, devices: DEVICE, images: IMAGE },
  create: createService,
});
