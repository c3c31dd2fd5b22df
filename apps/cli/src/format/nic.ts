import { NicSpec } from "@polyvisor/contracts/orchestrator";
import { UsageError } from "../cli-error.ts";
import { parseBytes, parseCount } from "./quantity.ts";

export const NIC_HELP = `MODE[:NAME][,OPTION=VALUE...] or the NAME of a network: an interface on it; may be given more than once.
Modes: nat, natnetwork[:NAME], internal[:NAME], hostonly[:NAME], bridged:INTERFACE.
Options: address=10.1.0.5/24 (static), mac=52:54:00:.., vlan=10 (access port), trunk=10+20, rate=10M (bytes per second)`;
const MODES = ["nat", "natnetwork", "internal", "hostonly", "bridged"];

/** `--net internal:lan1,address=10.1.0.5/24` → a NIC. */
export function parseNic(text: string): NicSpec {
  const [head = "", ...options] = text.split(",");
  const colon = head.indexOf(":");
  const first = colon < 0 ? head : head.slice(0, colon);
  const name = colon < 0 ? "" : head.slice(colon + 1);
  const isMode = MODES.includes(first);
  if (head === "" || (colon >= 0 && name === "")) throw new UsageError(`--net "${text}": a name is missing`);
  if (colon >= 0 && !isMode) throw new UsageError(`--net "${text}": mode "${first}"; expected ${MODES.join(", ")}`);
  if (first === "bridged" && !name) throw new UsageError(`--net bridged: say to which interface of the host, e.g. bridged:br0`);
  const nic = NicSpec.fromPartial(isMode ? { mode: first, ...(first === "bridged" ? { interface: name } : { network: name }) } : { network: head });
  for (const option of options) applyOption(nic, option, text);
  return nic;
}

function applyOption(nic: NicSpec, option: string, text: string): void {
  const at = option.indexOf("=");
  const value = option.slice(at + 1);
  const vlan = (number: string): number => parseCount(number, `--net "${text}": VLAN`, 1, 4094);
  switch (at > 0 ? option.slice(0, at) : option) {
    case "address":
      nic.address = value;
      return;
    case "mac":
      nic.mac = value.toLowerCase();
      return;
    case "vlan":
      nic.vlan = vlan(value);
      return;
    case "trunk":
      nic.trunk = value.split("+").map(vlan);
      return;
    case "rate":
      nic.rateLimit = parseBytes(value);
      return;
    case "network":
      nic.network = value;
      return;
    default:
      throw new UsageError(`--net "${text}": option "${option}"; expected address=, mac=, vlan=, trunk=, rate= or network=`);
  }
}
