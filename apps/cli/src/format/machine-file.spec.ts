import { describe, expect, it } from "vitest";
import { parseMachineFile } from "./machine-file.ts";

const parse = (value: unknown) => parseMachineFile(typeof value === "string" ? value : JSON.stringify(value), "/work/web.json");

describe("machine files", () => {
  it("the options of hv up by name; files are found beside the machine file", () => {
    expect(
      parse({ name: "web", box: "debian/13", cpus: 2, memory: "512M", disk: "data.raw", firmware: "none", deterministic: true, topology: "processes", net: ["nat", "internal:lan1,address=10.9.0.1/24"], forward: ["8080:80"] }),
    ).toMatchObject({
      name: "web", box: "debian/13", cpus: "2", memory: "512M", disk: "/work/data.raw", firmware: "none", deterministic: true, topology: "processes",
      net: [{ mode: "nat" }, { mode: "internal", network: "lan1", address: "10.9.0.1/24" }], forward: [{ hostPort: 8080, guestPort: 80 }],
    });
    expect(parse({})).toEqual({});
  });
  it.each([
    ["{", /not JSON/],
    ["[]", /expected one JSON object/],
    [{ cpu: 2 }, /cpu: expected a text/],
    [{ ram: "1G" }, /unknown key "ram"; there are name, box/],
    [{ network: "no" }, /network: expected true or false/],
    [{ topology: "cluster" }, /topology: expected embedded or processes/],
    [{ net: "nat" }, /net: expected a list of texts/],
    [{ net: ["nat", "bridged:x,vlan=9999"] }, /net\[1\]: /],
    [{ forward: ["80"] }, /forward\[0\]: /],
  ])("%j → an error that names file and key", (value, message) => {
    expect(() => parse(value)).toThrow(message);
    expect(() => parse(value)).toThrow(/^\/work\/web\.json: /);
  });
});
