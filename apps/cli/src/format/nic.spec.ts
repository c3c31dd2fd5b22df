import { describe, expect, it } from "vitest";
import { parseNic } from "./nic.ts";

describe("--net", () => {
  it.each([
    ["nat", { mode: "nat", network: "" }],
    ["internal:lan1", { mode: "internal", network: "lan1" }],
    ["lan1", { mode: "", network: "lan1" }],
    ["bridged:br0", { mode: "bridged", interface: "br0", network: "" }],
    ["bridged:br0,network=office", { mode: "bridged", interface: "br0", network: "office" }],
    ["natnetwork:n0,address=10.0.3.50,vlan=10", { mode: "natnetwork", network: "n0", address: "10.0.3.50", vlan: 10 }],
    ["internal:t,trunk=10+20,rate=10M,mac=52:54:00:AA:00:01", { trunk: [10, 20], rateLimit: 10n << 20n, mac: "52:54:00:aa:00:01" }],
  ])("%s", (text, nic) => {
    expect(parseNic(text)).toMatchObject(nic);
  });

  it.each([
    ["", /a name is missing/],
    ["internal:", /a name is missing/],
    ["vpn:x", /mode "vpn"; expected nat, natnetwork/],
    ["bridged", /which interface/],
    ["nat,vlan=5000", /VLAN/],
    ["nat,color=red", /option "color=red"; expected address=/],
  ])("%s → %s", (text, message) => {
    expect(() => parseNic(text)).toThrow(message);
  });
});
