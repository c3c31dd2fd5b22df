import { defineConfig, integer, path, text } from "@polyvisor/service-kit";

/** Configuration of the network-fabric. */
export interface NetworkFabricConfig {
  readonly maxNetworks: number;
  readonly maxPorts: number;
  readonly queueFrames: number;
  readonly leaseSeconds: number;
  readonly dnsTimeoutMs: number;
  readonly dnsServers: string;
  readonly stateDir: string;
}

export const DEFAULT_CONFIG: NetworkFabricConfig = {
  maxNetworks: 64,
  maxPorts: 256,
  queueFrames: 1024,
  leaseSeconds: 86_400,
  dnsTimeoutMs: 4500, // before the guest's own resolver asks again, which it does after 5 s (resolv.conf(5))
  dnsServers: "",
  stateDir: "",
};

export const CONFIG = defineConfig<NetworkFabricConfig>({
  maxNetworks: { doc: "networks at a time", type: integer(1, 4096), default: DEFAULT_CONFIG.maxNetworks },
  maxPorts: { doc: "ports at a time", type: integer(1, 65_536), default: DEFAULT_CONFIG.maxPorts },
  queueFrames: {
    doc: "frames that wait for a guest that takes none; more are dropped and counted",
    type: integer(1, 65_536),
    default: DEFAULT_CONFIG.queueFrames,
  },
  leaseSeconds: { doc: "how long a DHCP lease lasts", type: integer(60, 0xffff_fffe), default: DEFAULT_CONFIG.leaseSeconds },
  dnsTimeoutMs: { doc: "a DNS query without an answer for so long gets SERVFAIL", type: integer(1), default: DEFAULT_CONFIG.dnsTimeoutMs },
  dnsServers: { doc: "resolvers, comma-separated; empty: those of /etc/resolv.conf", type: text, default: DEFAULT_CONFIG.dnsServers },
  stateDir: { doc: "where networks, ports and leases are kept over a restart; empty: nowhere", type: path, default: DEFAULT_CONFIG.stateDir },
});
