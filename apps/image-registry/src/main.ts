import { runService } from "@polyvisor/service-kit";
import { CONFIG, createService } from "./index.ts";

await runService({
  name: "image-registry",
  about: "owns blobs, boxes and disks",
  config: CONFIG,
  peers: {},
  create: createService,
});
