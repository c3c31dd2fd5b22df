import { asContractError, ContractError } from "@polyvisor/contracts";
import { Network, NetworkMode, Port, PublishRequest, type NetworkPort } from "@polyvisor/contracts/network";
import type { ForwardSpec, MachineSpec, NicSpec } from "@polyvisor/contracts/orchestrator";
import { ADDRESS_MAP } from "@polyvisor/machine";

/** One network interface of a machine: what its device, its port and its network are called. */
export interface PlannedNic {
  /** The device: net0, net1 ... in slot order. */
  readonly id: string;
  readonly port: string;
  readonly mac: string;
  /** Asked for; `mode` UNSPECIFIED: it has to exist. */
  readonly network: Network;
  readonly spec: NicSpec;
  /** The guest sets the address itself, told by its kernel's command line: nobody on the network would give it. */
  readonly configuresItself: boolean;
}

/** Agent console, disk and random numbers take a virtio slot each. */
const MAX_NICS = ADDRESS_MAP.virtio.slots - 3;
export const NIC_MODES: Readonly<Record<string, NetworkMode>> = {
  nat: NetworkMode.NAT,
  natnetwork: NetworkMode.NAT_NETWORK,
  internal: NetworkMode.INTERNAL,
  hostonly: NetworkMode.HOST_ONLY,
  bridged: NetworkMode.BRIDGED,
};
const ADDRESS = /^(\d{1,3}\.){3}\d{1,3}(\/\d{1,2})?$/;

/** Refuses NICs that can never work; what depends on the networks is the network-fabric's to refuse. */
export function checkNics({ name, noNetwork, nics, forwards, deterministic }: MachineSpec): void {
  const refuse = (what: string) => new ContractError("invalid", `create machine ${name}: ${what}`);
  if (noNetwork && nics.length > 0) throw refuse("NICs and no network exclude each other");
  if (forwards.length > 0 && (noNetwork || (deterministic && nics.length === 0) || (nics.length > 0 && !nics.some(mayHaveNat)))) throw refuse("forwarded ports need an interface on nat or a natnetwork");
  for (const { protocol, hostPort, guestPort } of forwards) {
    if (!["", "tcp", "udp"].includes(protocol)) throw refuse(`forward: protocol "${protocol}"; expected tcp or udp`);
    if (guestPort < 1 || guestPort > 65_535 || hostPort > 65_535) throw refuse(`forward ${hostPort}:${guestPort}: ports are 1 to 65535`);
  }
  if (nics.length > MAX_NICS) throw refuse(`${nics.length} NICs; at most ${MAX_NICS}`);
  for (const [index, { mode, network, address, interface: bridged }] of nics.entries()) {
    if (mode !== "" && !(mode in NIC_MODES)) throw refuse(`net${index}: mode "${mode}"; expected ${Object.keys(NIC_MODES).join(", ")}`);
    if (mode === "" && network === "") throw refuse(`net${index} has neither mode nor network`);
    if (mode === "bridged" && bridged === "") throw refuse(`net${index} is bridged; say to which interface of the host`);
    if (address !== "" && !ADDRESS.test(address)) throw refuse(`net${index}: address "${address}"; expected IPv4 such as 10.1.0.5/24`);
  }
}

/** A network that is only named may be of any mode. */
function mayHaveNat({ mode }: NicSpec): boolean {
  return mode === "" || mode === "nat" || mode === "natnetwork";
}
/** The machine's NICs; without any in the spec one on the default network. */
export function planNics({ name, noNetwork, nics, deterministic }: MachineSpec, defaultNetwork: string): PlannedNic[] {
  // What comes from a network comes when it comes: a deterministic machine has one only if asked.
  if (noNetwork || (deterministic && nics.length === 0)) return [];
  const specs = nics.length > 0 ? nics : [{ network: defaultNetwork, mode: "nat", mac: "", address: "", vlan: 0, trunk: [], rateLimit: 0n, interface: "" }];
  return specs.map((spec, index): PlannedNic => {
    const network = spec.network || defaultNameOf(spec, defaultNetwork);
    const mode = NIC_MODES[spec.mode] ?? NetworkMode.UNSPECIFIED;
    return {
      id: `net${index}`,
      port: `${name}/net${index}`,
      mac: spec.mac || macOf(index === 0 ? name : `${name}/net${index}`),
      network: Network.fromPartial({ name: network, mode, interface: spec.interface }),
      spec,
      configuresItself: false,
    };
  });
}
/** Interfaces as a guest knows them that goes on under another name: with the MAC addresses that they have now. */
export function fixedNics(spec: MachineSpec, defaultNetwork: string): NicSpec[] {
  return planNics(spec, defaultNetwork).map((nic) => ({ ...nic.spec, mac: nic.mac }));
}
function defaultNameOf({ mode, interface: bridged }: NicSpec, defaultNetwork: string): string {
  if (mode === "nat") return defaultNetwork;
  return mode === "bridged" ? `bridged-${bridged}` : mode;
}

/** Makes the networks that do not exist, and learns who gives out the addresses on each. */
export async function findNetworks(fabric: NetworkPort, nics: readonly PlannedNic[]): Promise<PlannedNic[]> {
  const { networks } = await fabric.listNetworks({});
  const known = new Map(networks.map((network) => [network.name, network]));
  const found: PlannedNic[] = [];
  for (const nic of nics) {
    const { name, mode } = nic.network;
    const present = known.get(name);
    if (!present && mode === NetworkMode.UNSPECIFIED) {
      throw new ContractError("not-found", `there is no network ${name}; make it: hv net create ${name}, or say its mode: --net internal:${name}`);
    }
    if (present && mode !== NetworkMode.UNSPECIFIED && present.mode !== mode) {
      throw new ContractError("already-exists", `network ${name} exists and has another mode; see hv net inspect ${name}, or take another name`);
    }
    const network = present ?? (await fabric.createNetwork({ network: nic.network })).network!;
    known.set(name, network);
    found.push({ ...nic, network, configuresItself: nic.spec.address !== "" && network.subnet === "" });
  }
  return found;
}

/**
 * Refuses a guest that would go on with a MAC address which another machine has on the same network now: both would lose their
 * connections, and neither would hear why.
 */
export async function checkAddressesFree(fabric: NetworkPort, machine: string, nics: readonly PlannedNic[]): Promise<void> {
  const { ports } = await fabric.listPorts({ machine: "" });
  for (const { mac, network } of nics) {
    const taken = ports.find((port) => port.machine !== machine && port.network === network.name && port.mac === mac.toLowerCase());
    if (!taken) continue;
    throw new ContractError("conflict", `its guest has the address ${mac}, which ${taken.machine} has on network ${network.name}; halt or suspend ${taken.machine} first`);
  }
}

export async function createPorts(fabric: NetworkPort, machine: string, nics: readonly PlannedNic[]): Promise<void> {
  for (const { port, mac, network, spec, configuresItself } of nics) {
    const { vlan, trunk, rateLimit } = spec;
    const address = configuresItself ? "" : spec.address.replace(/\/.*/, "");
    const wanted = Port.fromPartial({ id: port, machine, network: network.name, mac, linkUp: true, vlan, trunk, rateLimit, address });
    try {
      await fabric.createPort({ port: wanted });
    } catch (error) {
      // Left by a start that was cut short, with other settings.
      if (asContractError(error).condition !== "already-exists") throw error;
      await fabric.deletePort({ id: port });
      await fabric.createPort({ port: wanted });
    }
  }
}

/** Leads ports of the host to the machine's first NIC behind a NAT. They end with its ports, when it stops. */
export async function publishForwards(fabric: NetworkPort, machine: string, forwards: readonly ForwardSpec[]): Promise<string[]> {
  const ids: string[] = [];
  for (const forward of forwards) ids.push((await fabric.publish(PublishRequest.fromPartial({ ...forward, machine }))).id);
  return ids;
}

/** For the kernel's command line: boxes of ours configure the interface with that MAC address so (tools/boxes). */
export function staticAddresses(nics: readonly PlannedNic[]): string {
  return nics
    .filter(({ configuresItself }) => configuresItself)
    .map(({ mac, spec }) => ` hv.net=${mac},${spec.address.includes("/") ? spec.address : `${spec.address}/24`}`)
    .join("");
}

/** A stable address per name in the block that QEMU and KVM use; FNV-1a, 24 bits folded. */
export function macOf(name: string): string {
  let hash = 0x811c9dc5;
  for (const character of name) hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193) >>> 0;
  const folded = (hash >>> 24) ^ (hash & 0xffffff);
  const tail = [folded >>> 16, (folded >>> 8) & 0xff, folded & 0xff];
  return ["52", "54", "00", ...tail.map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}
