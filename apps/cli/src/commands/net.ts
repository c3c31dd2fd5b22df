import { Network, type Port } from "@polyvisor/contracts/network";
import { Option, type Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { UsageError } from "../cli-error.ts";
import { formatDuration, parseCount } from "../format/quantity.ts";
import { table } from "../format/table.ts";
import { modeName, modeOf, NETWORK_MODES } from "../net/modes.ts";
import { graphDot, graphText } from "../net/graph.ts";
import { TOPOLOGIES, type Topology } from "../stack/home.ts";
import type { Stack } from "../stack/stacks.ts";
import { addNetCaptureCommand } from "./net-capture.ts";
import { addNetCheckCommand } from "./net-check.ts";
import { addNetForwardCommands } from "./net-forward.ts";
import { addNetImpairCommand } from "./net-impair.ts";

export interface NetOptions {
  json?: boolean;
  topology?: Topology;
}

/** hv net ...: the virtual networks, what is on them, and what happens there. */
export function addNetCommands(program: Command, cli: Cli): void {
  const net = program.command("net").description("virtual networks: make them, look at them, pull cables, capture, damage");
  addCreate(net, cli);
  addLists(net, cli);
  addCables(net, cli);
  addNetImpairCommand(net, cli);
  addNetCaptureCommand(net, cli);
  addNetForwardCommands(net, cli);
  addNetCheckCommand(net, cli);
}

export function netOption(): Option {
  return new Option("--topology <name>", "stack, when more than one runs").choices(TOPOLOGIES);
}
/** The stack of a port or machine ("web/net0", "web"), else the one that runs. */
export async function stackOf(cli: Cli, options: NetOptions, machine?: string): Promise<Stack> {
  const name = machine?.split("/")[0];
  const topology = options.topology ?? (name ? await cli.stacks.findMachine(name) : undefined);
  return cli.stacks.only(topology);
}

function addCreate(net: Command, cli: Cli): void {
  interface CreateOptions extends NetOptions {
    mode: string;
    subnet?: string;
    gateway?: string;
    dns?: string;
    mtu?: string;
    joinHost?: boolean;
    hostAddress?: string;
    interface?: string;
    spoof?: string;
    stormLimit?: string;
  }
  addCommand(net, "create <name>", "make a network; hv up --net NAME puts machines on it", [
    ["hv net create lan1 --mode internal", "a switch and nothing else"],
    ["hv net create lan2 --mode internal --subnet 10.9.0.0/24", "with DHCP and names, without a way out"],
    ["hv net create office --mode natnetwork --join-host", "machines behind one gateway, the host beside them (VMware's form)"],
    ["hv net create lab --mode hostonly", "machines and the host (needs root)"],
    ["hv net create outside --mode bridged --interface br0", "on the host's own network (needs root)"],
  ])
    .addOption(new Option("--mode <mode>", "what the network is").choices(Object.keys(NETWORK_MODES)).makeOptionMandatory())
    .option("--subnet <cidr>", "addresses (default: a free /24)")
    .option("--gateway <address>", "of the gateway, or of the DHCP server (default: .2)")
    .option("--dns <address>", "of the name server (default: .3)")
    .option("--mtu <bytes>", "largest packet (default: 1500)")
    .option("--join-host", "the host is on the network, too (natnetwork)")
    .option("--host-address <address>", "of the host (default: .1)")
    .option("--interface <name>", "bridged: interface of the host; else: name of the host's new interface")
    .addOption(new Option("--spoof <policy>", "frames with another's addresses (default: deny on nat)").choices(["deny", "allow"]))
    .option("--storm-limit <n>", "frames for everybody per second and port (default: 1000)")
    .addOption(netOption())
    .action(async (name: string, options: CreateOptions) => {
      const stack = options.topology ? await cli.stacks.ensure(options.topology) : await cli.stacks.any();
      const { network } = await stack.network.createNetwork({
        network: Network.fromPartial({
          name,
          mode: modeOf(options.mode),
          subnet: options.subnet ?? "",
          gateway: options.gateway ?? "",
          dns: options.dns ?? "",
          mtu: options.mtu === undefined ? 0 : parseCount(options.mtu, "--mtu", 576, 65_521),
          joinHost: options.joinHost ?? false,
          hostAddress: options.hostAddress ?? "",
          interface: options.interface ?? "",
          spoof: options.spoof ?? "",
          stormLimit: options.stormLimit === undefined ? 0 : parseCount(options.stormLimit, "--storm-limit", 1, 1e9),
        }),
      });
      cli.answer(options, shown(network!), () => `${cli.color.green("✓")} network ${cli.color.bold(name)}${network!.subnet ? `, ${network!.subnet}` : ""}; put a machine on it: hv up NAME --net ${name}`);
    });

  addCommand(net, "rm <name>", "remove a network that no port is on", [["hv net rm lan1", ""]])
    .addOption(netOption())
    .action(async (name: string, options: NetOptions) => {
      const stack = await stackOf(cli, options);
      await stack.network.inspectNetwork({ name }); // says which there are
      await stack.network.deleteNetwork({ name });
      cli.answer(options, { removed: name }, () => `network ${name} is gone`);
    });
}

function addLists(net: Command, cli: Cli): void {
  addCommand(net, "ls", "list the networks", [["hv net ls", ""]])
    .addOption(netOption())
    .action(async (options: NetOptions) => {
      const { network } = await stackOf(cli, options);
      const [{ networks }, { ports }] = await Promise.all([network.listNetworks({}), network.listPorts({ machine: "" })]);
      const of = (name: string): Port[] => ports.filter((port) => port.network === name);
      cli.answer(options, networks.map((each) => ({ ...shown(each), ports: of(each.name).map(({ id }) => id) })), () =>
        table(
          ["name", "mode", "subnet", "host", "interface", "mtu", "ports"],
          networks.map((each) => [each.name, modeName(each.mode), each.subnet, each.hostAddress, each.interface, each.mtu, of(each.name).map(({ id }) => id).join(" ")]),
        ),
      );
    });

  addCommand(net, "inspect <name>", "everything about one network: ports, stations heard, leases, counters", [["hv net inspect nat", ""]])
    .addOption(netOption())
    .action(async (name: string, options: NetOptions) => {
      const { network: fabric } = await stackOf(cli, options);
      const found = await fabric.inspectNetwork({ name });
      const { counters: perPort } = await fabric.readNetworkStats({ machine: "", network: name });
      cli.answer(options, { ...found, network: shown(found.network!), counters: Object.fromEntries(perPort) }, () => {
        const { network, ports, leases, stations, counters } = found;
        const count = (port: Port, counter: string): bigint => perPort.get(`${port.id}.${counter}`) ?? 0n;
        const dropped = (port: Port): bigint => [...perPort].filter(([key]) => key.startsWith(`${port.id}.`) && key.includes("_dropped")).reduce((sum, [, value]) => sum + value, 0n);
        const facts = Object.entries(shown(network!)).filter(([, value]) => value !== "" && value !== false);
        return [
          table(["setting", "value"], facts.map(([key, value]) => [key, String(value)])),
          ports.length > 0 ? table(["port", "mac", "link", "vlan", "peer", "rx frames", "tx frames", "dropped"], ports.map((port) => [port.id, port.mac, port.linkUp ? "up" : cli.color.red("down"), vlanText(port), port.peer, count(port, "rx_frames"), count(port, "tx_frames"), dropped(port)])) : "no ports",
          leases.length > 0 ? leaseTable(leases) : "",
          stations.length > 0 ? table(["station", "heard at", "vlan", "ago"], stations.map((each) => [each.mac, each.port, each.vlan ? String(each.vlan) : "", formatDuration(each.ageSeconds * 1000)])) : "",
          counters.size > 0 ? table(["counter", "value"], [...counters].map(([key, value]) => [key, value])) : "",
        ].filter(Boolean).join("\n\n");
      });
    });

  addCommand(net, "leases [network]", "addresses that DHCP has given out", [["hv net leases", ""]])
    .addOption(netOption())
    .action(async (name: string | undefined, options: NetOptions) => {
      const { network } = await stackOf(cli, options);
      const { leases } = await network.listLeases({ network: name ?? "" });
      cli.answer(options, leases, () => (leases.length === 0 ? "No leases; machines ask a moment after they start." : leaseTable(leases)));
    });

  addCommand(net, "flows [machine]", "connections through the NAT, both sides of each rewriting", [["hv net flows web", ""]])
    .addOption(netOption())
    .action(async (machine: string | undefined, options: NetOptions) => {
      const { network } = await stackOf(cli, options, machine);
      const { natFlows: flows } = await network.listFlows({ machine: machine ?? "" });
      cli.answer(options, flows, () => {
        if (flows.length === 0) return "No flows.";
        const rows = flows.map((flow) => [flow.port, flow.protocol, `${flow.guestLocal} → ${flow.guestRemote}`, `${flow.hostLocal} → ${flow.hostRemote}`, flow.state, flow.bytesFromGuest, flow.bytesToGuest, formatDuration(Number(flow.idleMs))]);
        return table(["port", "protocol", "as the guest sees it", "as the host does", "state", "bytes out", "bytes in", "idle"], rows);
      });
    });

  addCommand(net, "graph", "draw machines and networks", [
    ["hv net graph", "as a tree"],
    ["hv net graph --dot | dot -Tsvg > net.svg", "for Graphviz"],
  ])
    .option("--dot", "in Graphviz's language")
    .addOption(netOption())
    .action(async (options: NetOptions & { dot?: boolean }) => {
      const { network } = await stackOf(cli, options);
      const [{ networks }, { ports }, { leases }] = await Promise.all([network.listNetworks({}), network.listPorts({ machine: "" }), network.listLeases({ network: "" })]);
      const graph = { networks, ports, leases };
      cli.answer(options, graph, () => (options.dot ? graphDot(graph) : graphText(graph)));
    });
}

function addCables(net: Command, cli: Cli): void {
  addCommand(net, "link <port> <state>", "pull a cable (down) or plug it in again (up): the guest sees the carrier", [["hv net link web/net0 down", ""]])
    .addOption(netOption())
    .action(async (id: string, state: string, options: NetOptions) => {
      if (state !== "up" && state !== "down") throw new UsageError(`"${state}"; expected up or down`);
      const { network } = await stackOf(cli, options, id);
      const { port } = await network.setLink({ port: id, up: state === "up" });
      cli.answer(options, port, () => `${id} is ${state}`);
    });

  addCommand(net, "move <port> <network>", "plug a port into another network while its machine runs", [["hv net move web/net0 lan1", ""]])
    .addOption(netOption())
    .action(async (id: string, to: string, options: NetOptions) => {
      const { network } = await stackOf(cli, options, id);
      const { port } = await network.movePort({ port: id, network: to });
      cli.answer(options, port, () => `${id} is on ${to} now; its guest has to ask for an address anew (udhcpc -n -q -i eth${/\d+$/.exec(id)?.[0] ?? 0})`);
    });

  interface PlugOptions extends NetOptions {
    qemuStream?: string;
    qemuDgram?: string;
    tap?: string;
    vlan?: string;
    id?: string;
  }
  addCommand(net, "plug <network>", "a port for something that is no machine of ours: QEMU, or a TAP interface", [
    ["hv net plug lan1 --qemu-stream /tmp/q.sock", "qemu-system-... -netdev stream,id=n0,server=off,addr.type=unix,addr.path=/tmp/q.sock"],
    ["hv net plug lan1 --qemu-dgram 7001:7002", "-netdev dgram,id=n0,local.type=inet,local.host=127.0.0.1,local.port=7002,remote...port=7001"],
    ["hv net plug lan1 --tap pvlan1", "an interface of the host that may be moved to a namespace (needs root)"],
  ])
    .option("--qemu-stream <path>", "Unix socket to listen on")
    .option("--qemu-dgram <local:remote>", "UDP ports of the loopback")
    .option("--tap <name>", "name of the interface")
    .option("--vlan <id>", "access port of this VLAN")
    .option("--id <port>", "name of the port (default: peer/<network>-<n>)")
    .addOption(netOption())
    .action(async (name: string, options: PlugOptions) => {
      const peers = [options.qemuStream && `qemu-stream:${options.qemuStream}`, options.qemuDgram && `qemu-dgram:${options.qemuDgram}`, options.tap && `tap:${options.tap}`].filter((each) => each !== undefined);
      if (peers.length !== 1) throw new UsageError("give one of --qemu-stream, --qemu-dgram, --tap");
      const { network } = await stackOf(cli, options);
      const taken = new Set((await network.listPorts({ machine: "peer" })).ports.map(({ id }) => id));
      let number = 0;
      while (taken.has(`peer/${name}-${number}`)) number++;
      const vlan = options.vlan === undefined ? 0 : parseCount(options.vlan, "--vlan", 1, 4094);
      const wanted = { id: options.id ?? `peer/${name}-${number}`, machine: "peer", network: name, mac: "", linkUp: true, vlan, trunk: [], address: "", rateLimit: 0n, peer: peers[0]! };
      const { port } = await network.createPort({ port: wanted });
      cli.answer(options, port, () => `port ${port!.id} waits; unplug it with: hv net unplug ${port!.id}`);
    });

  addCommand(net, "unplug <port>", "remove a port that hv net plug made", [["hv net unplug peer/lan1-0", ""]])
    .addOption(netOption())
    .action(async (id: string, options: NetOptions) => {
      const { network } = await stackOf(cli, options);
      const port = (await network.listPorts({ machine: "" })).ports.find((each) => each.id === id);
      if (!port?.peer) throw new UsageError(port ? `${id} is a machine's; use hv net link ${id} down` : `there is no port ${id}; hv net ls shows them`);
      await network.deletePort({ id });
      cli.answer(options, { removed: id }, () => `${id} is gone`);
    });
}

function leaseTable(leases: readonly { network: string; mac: string; address: string; hostname: string; expiresUnixMs: bigint }[]): string {
  return table(["network", "address", "mac", "hostname", "expires"], leases.map((each) => [each.network, each.address, each.mac, each.hostname, new Date(Number(each.expiresUnixMs)).toISOString().slice(0, 16).replace("T", " ")]));
}
function vlanText({ vlan, trunk }: Port): string {
  return trunk.length > 0 ? `trunk ${trunk.join("+")}${vlan ? `, native ${vlan}` : ""}` : vlan ? String(vlan) : "";
}
/** For --json: the mode by name. */
function shown(network: Network) {
  return { ...network, mode: modeName(network.mode) };
}
