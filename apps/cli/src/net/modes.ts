import { NetworkMode } from "@polyvisor/contracts/network";

/** Modes as the command line calls them. */
export const NETWORK_MODES: Readonly<Record<string, NetworkMode>> = {
  nat: NetworkMode.NAT,
  natnetwork: NetworkMode.NAT_NETWORK,
  internal: NetworkMode.INTERNAL,
  hostonly: NetworkMode.HOST_ONLY,
  bridged: NetworkMode.BRIDGED,
};
export function modeOf(name: string): NetworkMode {
  return NETWORK_MODES[name] ?? NetworkMode.UNSPECIFIED;
}
export function modeName(mode: NetworkMode): string {
  return Object.entries(NETWORK_MODES).find(([, value]) => value === mode)?.[0] ?? String(mode);
}
