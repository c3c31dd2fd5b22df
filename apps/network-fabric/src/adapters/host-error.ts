import { isIPv6 } from "node:net";
import { HostError, type HostFailure } from "../core/nat/host-network.ts";

const FAILURES: Readonly<Record<string, HostFailure>> = {
  ECONNREFUSED: "refused",
  EHOSTUNREACH: "host-unreachable",
  EHOSTDOWN: "host-unreachable",
  ENETUNREACH: "network-unreachable",
  ENETDOWN: "network-unreachable",
  EADDRNOTAVAIL: "network-unreachable",
  EACCES: "denied",
  EPERM: "denied",
  ETIMEDOUT: "timeout",
  ECONNRESET: "reset",
  EPIPE: "reset",
  EADDRINUSE: "in-use",
  EMSGSIZE: "too-large",
};
/** What a system call's error means for a guest. */
export function hostError(error: unknown): HostError {
  const { code = "", message } = error as NodeJS.ErrnoException;
  return new HostError(FAILURES[code] ?? "other", message, { cause: error });
}
export function showAddress(address: string | undefined, port: number | undefined): string {
  if (address === undefined || port === undefined) return "";
  return isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`;
}
