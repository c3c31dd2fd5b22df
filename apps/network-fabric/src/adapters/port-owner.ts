import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { HostAddress } from "../core/nat/host-network.ts";

/** TCP_LISTEN in /proc/net/tcp (proc(5)); UDP sockets have no such state. */
const LISTENING = "0A";

/** Which process has a port of this host, as "name (pid)"; undefined: it cannot be told (not Linux, another user's). */
export function ownerOf(protocol: "tcp" | "udp", { port }: HostAddress): string | undefined {
  try {
    const inodes = new Set([...socketInodes(protocol, port), ...socketInodes(`${protocol}6`, port)]);
    if (inodes.size === 0) return undefined;
    for (const pid of readdirSync("/proc")) {
      if (/^\d+$/.test(pid) && hasSocket(pid, inodes)) return `${readFileSync(`/proc/${pid}/comm`, "utf8").trim()} (process ${pid})`;
    }
  } catch {
    // no /proc
  }
  return undefined;
}
function socketInodes(table: string, port: number): string[] {
  let text: string;
  try {
    text = readFileSync(`/proc/net/${table}`, "utf8");
  } catch {
    return [];
  }
  return text
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local !== undefined && parseInt(local.slice(local.indexOf(":") + 1), 16) === port && (table.startsWith("udp") || state === LISTENING))
    .map((fields) => fields[9]!);
}
function hasSocket(pid: string, inodes: ReadonlySet<string>): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => inodes.has(/^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? ""));
  } catch {
    return false; // gone, or another user's
  }
}
