import { runService } from "@polyvisor/service-kit";
import { CONFIG, createService } from "./index.ts";

await runService({
  name: "network-fabric",
  about: "owns networks, ports, DHCP leases: the guests' other end of the wire",
  config: CONFIG,
  peers: {},
  create: createService,
});
