import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { messages } from "@polyvisor/contracts";
import { decodeFrame, PcapngReader, type CapturedPacket, type DecodedFrame } from "@polyvisor/wire";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { parseCount, parseSeconds } from "../format/quantity.ts";
import { netOption, stackOf, type NetOptions } from "./net.ts";

interface CaptureOptions extends NetOptions {
  write?: string;
  snap?: string;
  count?: string;
  seconds?: string;
}

export function addNetCaptureCommand(net: Command, cli: Cli): void {
  addCommand(net, "capture <target>", "capture the frames of a network or of one port (M/net0) until Ctrl-C: shown live, or as pcapng", [
    ["hv net capture nat", "one line per frame"],
    ["hv net capture web/net0 -w web.pcapng", "a file for Wireshark, with the ports' names"],
    ["hv net capture lan1 -w - | tshark -r -", "a live pipe"],
  ])
    .option("-w, --write <file>", "pcapng into a file, or - for standard output")
    .option("--snap <bytes>", "keep only the first bytes of each frame")
    .option("--count <n>", "leave after so many frames")
    .option("--seconds <s>", "leave after so long")
    .addOption(netOption())
    .action((target: string, options: CaptureOptions) => capture(cli, target, options));
}

async function capture(cli: Cli, target: string, options: CaptureOptions): Promise<void> {
  const limit = options.count === undefined ? Infinity : parseCount(options.count, "--count", 1, 1e9);
  const snapBytes = options.snap === undefined ? 0 : parseCount(options.snap, "--snap", 14, 65_535);
  const { network } = await stackOf(cli, options);
  const isPort = (await network.listPorts({ machine: "" })).ports.some(({ id }) => id === target);
  const stop = new AbortController();
  const timer = options.seconds === undefined ? undefined : setTimeout(() => stop.abort(), parseSeconds(options.seconds) * 1000);
  const interrupt = (): void => stop.abort();
  process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
  const out = options.write === undefined ? undefined : options.write === "-" ? cli.stdout : createWriteStream(options.write);
  // The reader of a pipe may leave (head, tshark -c): that ends the capture, and is no error.
  out?.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") cli.note(`hv net capture: ${error.message}`);
    stop.abort();
  });
  const reader = new PcapngReader();
  let frames = 0;
  if (options.write !== "-") cli.note(`capturing ${target}; Ctrl-C ends it`);
  try {
    const request = { network: isPort ? "" : target, port: isPort ? target : "", snapBytes };
    for await (const { pcapng } of messages(network.capture(request, { signal: stop.signal, timeoutMs: Infinity }))) {
      const packets = reader.push(pcapng);
      if (out && !out.write(pcapng)) await Promise.race([once(out, "drain"), new Promise((resolve) => stop.signal.addEventListener("abort", resolve))]);
      if (!out) for (const packet of packets.slice(0, limit - frames)) cli.print(options.json ? packetJson(packet) : packetLine(cli, packet));
      frames += packets.length;
      if (frames >= limit) break;
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    clearTimeout(timer);
    process.off("SIGINT", interrupt).off("SIGTERM", interrupt);
    if (out && out !== cli.stdout) await new Promise<void>((resolve) => out.end(() => resolve()));
  }
  if (options.write !== undefined && options.write !== "-") cli.note(`${frames} frames in ${options.write}`);
}

function packetJson({ interface: port, direction, unixNanoseconds, data }: CapturedPacket): string {
  const decoded = decodeFrame(data);
  return JSON.stringify({ time: Number(unixNanoseconds) / 1e9, port, direction, ...decoded }, (_, value: unknown) => (value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value));
}
function packetLine(cli: Cli, { interface: port, direction, unixNanoseconds, data }: CapturedPacket): string {
  const time = new Date(Number(unixNanoseconds / 1_000_000n)).toISOString().slice(11, 23);
  const frame = decodeFrame(data);
  return `${cli.color.dim(time)} ${port.padEnd(12)} ${direction === "out" ? "←" : "→"} ${frame ? summary(frame) : `${data.length} bytes`}`;
}
/** A frame in one line, as tcpdump users read it. */
export function summary({ eth, bytes, arp, ip, tcp, udp, icmp, dns, dhcp }: DecodedFrame): string {
  const vlan = eth.vlan === undefined ? "" : `vlan ${eth.vlan} `;
  if (arp) return `${vlan}ARP ${arp.op === "request" ? `who has ${arp.target}? tell ${arp.sender}` : `${arp.sender} is at ${arp.sender_mac}`}`;
  if (!ip) return `${vlan}${eth.src} → ${eth.dst}, type 0x${eth.type.toString(16)}, ${bytes} bytes`;
  const ports = tcp ?? udp;
  const ends = ports ? `${ip.src}:${ports.sport} → ${ip.dst}:${ports.dport}` : `${ip.src} → ${ip.dst}`;
  if (dns) return `${vlan}${ends} DNS ${dns.response ? `answer ${dns.name}: ${dns.answers.map(({ address, type }) => address || `type ${type}`).join(", ") || `code ${dns.rcode}`}` : `query ${dns.name}`}`;
  if (dhcp) return `${vlan}${ends} DHCP ${dhcp.type} ${dhcp.mac}${dhcp.address === "0.0.0.0" ? "" : ` ${dhcp.address}`}`;
  if (tcp) return `${vlan}${ends} TCP ${tcp.flags || "none"} seq ${tcp.seq} win ${tcp.window}, ${tcp.payload.length} bytes`;
  if (udp) return `${vlan}${ends} UDP, ${udp.payload.length} bytes`;
  if (icmp) return `${vlan}${ends} ICMP type ${icmp.type} code ${icmp.code}`;
  return `${vlan}${ends} protocol ${ip.proto}${ip.fragment ? " (fragment)" : ""}, ${bytes} bytes`;
}
