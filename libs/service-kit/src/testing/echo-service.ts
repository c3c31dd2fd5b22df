// A whole service in one file, for the specs of runService: a NetworkService that only answers listPorts.
import { IMAGE } from "@polyvisor/contracts/image";
import { NETWORK, Port } from "@polyvisor/contracts/network";
import { defineConfig, integer } from "../config.ts";
import { runService } from "../run-service.ts";
import type { RunningService } from "../service.ts";

await runService({
  name: "network-fabric",
  about: "answers one port, for tests",
  config: defineConfig<{ mtu: number }>({ mtu: { doc: "largest frame", type: integer(576, 65535), default: 1500 } }),
  peers: { images: IMAGE },
  create: async (config, peers, context): Promise<RunningService<typeof NETWORK.definition>> => {
    context.events.publish({ machine: "-", service: "network-fabric", fact: "service-started", data: { mtu: config.mtu } });
    return {
      contract: NETWORK,
      implementation: {
        listPorts: ({ machine }) => ({ ports: [Port.fromPartial({ id: `${machine}/net0`, machine, network: "nat", linkUp: true })] }),
        // Asks its peer, which the spec does not start.
        listNetworks: async () => {
          await peers.images.listBoxes({});
          return { networks: [] };
        },
        frames: (channel) => channel.onMessage((batch) => channel.send(batch)),
      },
      describe: () => ({ mtu: String(config.mtu) }),
      close: async () => {},
    };
  },
});
