import { NetworkMode, type DhcpLease, type Network, type Port } from "@polyvisor/contracts/network";
import { modeName } from "./modes.ts";

export interface NetGraph {
  readonly networks: readonly Network[];
  readonly ports: readonly Port[];
  readonly leases: readonly DhcpLease[];
}

/** What is on a network besides ports. */
function fixtures({ mode, gateway, hostAddress, interface: name }: Network): string[] {
  const out: string[] = [];
  if (mode === NetworkMode.NAT_NETWORK || mode === NetworkMode.NAT) out.push(`gateway ${gateway} → the world`);
  if (hostAddress) out.push(`host ${hostAddress} (${name})`);
  if (mode === NetworkMode.BRIDGED) out.push(`host's ${name}`);
  return out;
}
const addressOf = ({ leases }: NetGraph, port: Port): string => leases.find(({ mac, network }) => mac === port.mac && network === port.network)?.address ?? port.address;

/** A tree: networks, and what is on each. Machines that are on several are named at each. */
export function graphText(graph: NetGraph): string {
  return graph.networks
    .map((network) => {
      const ports = graph.ports.filter((port) => port.network === network.name);
      const lines = [...fixtures(network), ...ports.map((port) => [port.id, addressOf(graph, port), port.linkUp ? "" : "(cable out)"].filter(Boolean).join(" "))];
      const tree = lines.map((line, i) => `${i === lines.length - 1 ? "└─" : "├─"} ${line}`);
      return [`${network.name} (${modeName(network.mode)}${network.subnet ? ` ${network.subnet}` : ""})`, ...tree].join("\n");
    })
    .join("\n");
}

/** Graphviz: networks are boxes, machines are ellipses, ports are the lines between. */
export function graphDot(graph: NetGraph): string {
  const quoted = (text: string): string => JSON.stringify(text);
  const networks = graph.networks.map((network) => `  ${quoted(`net:${network.name}`)} [shape=box, label=${quoted([`${network.name} (${modeName(network.mode)})`, network.subnet, ...fixtures(network)].filter(Boolean).join("\n"))}];`);
  const machines = [...new Set(graph.ports.map(({ machine }) => machine))].map((machine) => `  ${quoted(machine)};`);
  const lines = graph.ports.map((port) => {
    const label = [port.id.split("/").at(-1), addressOf(graph, port)].filter(Boolean).join("\n");
    return `  ${quoted(port.machine)} -- ${quoted(`net:${port.network}`)} [label=${quoted(label)}${port.linkUp ? "" : ", style=dashed"}];`;
  });
  return ["graph polyvisor {", ...networks, ...machines, ...lines, "}"].join("\n");
}
