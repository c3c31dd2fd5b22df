import { ContractError } from "@polyvisor/contracts";
import { Network, NetworkMode, type NetworkPort, type Port } from "@polyvisor/contracts/network";
import { MachineSpec, NicSpec } from "@polyvisor/contracts/orchestrator";
import { describe, expect, it } from "vitest";
import { checkNics, createPorts, findNetworks, macOf, planNics, staticAddresses } from "./nics.ts";

const machine = (...nics: Partial<NicSpec>[]) => MachineSpec.fromPartial({ name: "web", nics: nics.map((nic) => NicSpec.fromPartial(nic)) });

/** A fabric that keeps books. */
function fakeFabric(networks: Network[] = []) {
  const ports = new Map<string, Port>();
  const fabric = {
    listNetworks: async () => ({ networks }),
    createNetwork: async ({ network }: { network: Network }) => {
      const made = { ...network, subnet: network.mode === NetworkMode.NAT_NETWORK ? "10.0.3.0/24" : "" };
      networks.push(made);
      return { network: made };
    },
    createPort: async ({ port }: { port: Port }) => {
      const present = ports.get(port.id);
      if (present && present.network !== port.network) throw new ContractError("already-exists", "differs");
      ports.set(port.id, port);
      return { port };
    },
    deletePort: async ({ id }: { id: string }) => (ports.delete(id), {}),
  } as unknown as NetworkPort;
  return { fabric, ports, networks };
}

describe("NICs of a machine", () => {
  it("none said → one on the default network; --no-network → none", () => {
    expect(planNics(machine(), "nat")).toMatchObject([{ id: "net0", port: "web/net0", mac: macOf("web"), network: { name: "nat", mode: NetworkMode.NAT } }]);
    expect(planNics({ ...machine(), noNetwork: true }, "nat")).toEqual([]);
    expect(planNics({ ...machine(), deterministic: true }, "nat")).toEqual([]);
    expect(planNics({ ...machine({ mode: "nat" }), deterministic: true }, "nat")).toHaveLength(1);
  });

  it("each has a port, a MAC address of its own and, unless named, the default network of its mode", () => {
    const nics = planNics(machine({ mode: "nat" }, { mode: "internal", network: "lan1" }, { mode: "hostonly" }, { mode: "bridged", interface: "br0" }), "nat");
    expect(nics.map(({ port, network }) => [port, network.name, network.interface])).toEqual([
      ["web/net0", "nat", ""],
      ["web/net1", "lan1", ""],
      ["web/net2", "hostonly", ""],
      ["web/net3", "bridged-br0", "br0"],
    ]);
    expect(new Set(nics.map(({ mac }) => mac)).size).toBe(4);
    for (const { mac } of nics) expect(mac).toMatch(/^52:54:00(:[0-9a-f]{2}){3}$/);
  });

  it.each([
    ["a mode that does not exist", machine({ mode: "vpn" }), /mode "vpn"; expected nat, natnetwork, internal, hostonly, bridged/],
    ["neither mode nor network", machine({}), /neither mode nor network/],
    ["bridged to nothing", machine({ mode: "bridged" }), /which interface/],
    ["an address that is none", machine({ mode: "internal", address: "10.1.0" }), /expected IPv4/],
    ["more than there are slots for", machine(...Array.from({ length: 6 }, () => ({ mode: "nat" }))), /at most 5/],
    ["NICs and no network", { ...machine({ mode: "nat" }), noNetwork: true }, /exclude/],
  ])("%s → refused", (_, spec, message) => {
    expect(() => checkNics(spec)).toThrow(message);
  });

  it("networks are made when the mode is said; one that must exist and does not → a message that says what to do", async () => {
    const { fabric, networks } = fakeFabric();
    await findNetworks(fabric, planNics(machine({ mode: "internal", network: "lan1" }, { mode: "internal", network: "lan1" }), "nat"));
    expect(networks.map(({ name }) => name)).toEqual(["lan1"]);
    await expect(findNetworks(fabric, planNics(machine({ network: "lan2" }), "nat"))).rejects.toThrow(/no network lan2; make it: hv net create lan2/);
    await expect(findNetworks(fabric, planNics(machine({ network: "lan1", mode: "natnetwork" }), "nat"))).rejects.toThrow(/lan1 exists and has another mode/);
  });

  it("a static address is kept by DHCP where the network has it, else the kernel's command line says it", async () => {
    const { fabric, ports } = fakeFabric();
    const nics = await findNetworks(fabric, planNics(machine({ mode: "natnetwork", address: "10.0.3.50" }, { mode: "internal", address: "10.1.0.5/16" }), "nat"));
    expect(staticAddresses(nics)).toBe(` hv.net=${macOf("web/net1")},10.1.0.5/16`);
    await createPorts(fabric, "web", nics);
    expect([...ports.values()].map(({ address }) => address)).toEqual(["10.0.3.50", ""]);
  });

  it("a port left by a start that was cut short is replaced", async () => {
    const { fabric, ports } = fakeFabric();
    await createPorts(fabric, "web", await findNetworks(fabric, planNics(machine({ mode: "internal", network: "a" }), "nat")));
    await createPorts(fabric, "web", await findNetworks(fabric, planNics(machine({ mode: "internal", network: "b" }), "nat")));
    expect(ports.get("web/net0")!.network).toBe("b");
  });
});
