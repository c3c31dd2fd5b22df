import type { Forward, Network, Port } from "@polyvisor/contracts/network";
import type { Lease } from "./dhcp-server.ts";

/** What survives a restart of the service. Writes are kept when the call returns, also over kill -9. */
export interface FabricStore {
  networks(): Network[];
  saveNetwork(network: Network): void;
  removeNetwork(name: string): void;
  ports(): Port[];
  savePort(port: Port): void;
  removePort(id: string): void;
  /** A scope is a network, or one port of a NAT network. */
  leases(scope: string): Lease[];
  saveLeases(scope: string, leases: readonly Lease[]): void;
  forwards(): Forward[];
  saveForward(forward: Forward): void;
  removeForward(id: string): void;
  close(): void;
}

/** Keeps nothing beyond the process: tests, and services without a state directory. */
export function memoryStore(): FabricStore {
  const networks = new Map<string, Network>();
  const ports = new Map<string, Port>();
  const forwards = new Map<string, Forward>();
  const leases = new Map<string, readonly Lease[]>();
  return {
    networks: () => [...networks.values()],
    saveNetwork: (network) => void networks.set(network.name, network),
    removeNetwork: (name) => void networks.delete(name),
    ports: () => [...ports.values()],
    savePort: (port) => void ports.set(port.id, port),
    removePort: (id) => void ports.delete(id),
    leases: (scope) => [...(leases.get(scope) ?? [])],
    saveLeases: (scope, all) => void leases.set(scope, all),
    forwards: () => [...forwards.values()],
    saveForward: (forward) => void forwards.set(forward.id, { ...forward }),
    removeForward: (id) => void forwards.delete(id),
    close: () => {},
  };
}
