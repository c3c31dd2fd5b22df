import { CSR_BY_NAME } from "@polyvisor/isa";
import { csrRow } from "../csr.ts";
import type { Privileged } from "../privileged.ts";
import type { GuestView } from "./guest-view.ts";
import { walkText } from "./page-walk.ts";
import type { DebugTarget } from "./target.ts";

/** What `monitor` commands switch. */
export interface MonitorState {
  /** Addresses of memory commands are physical. */
  physical: boolean;
  /** A single step may enter an interrupt handler. */
  stepInterrupts: boolean;
}

const HELP = [
  "monitor harts                      what each hart does",
  "monitor walk ADDRESS               translate an address step by step, as the selected hart does",
  "monitor phys on|off                x, set, ... take physical addresses (also: maint packet Qqemu.PhyMemMode:1)",
  "monitor step-interrupts on|off     let single steps enter interrupt handlers (off: interrupts wait, as does time)",
  "monitor csr NAME|NUMBER            read a CSR that the target description lacks",
  "detach leaves the guest running; so does kill: hv halt and hv destroy end it",
];

/** A `monitor` command of GDB; the answer's lines. */
export async function monitorCommand(command: string, target: DebugTarget, hart: Privileged, view: GuestView, state: MonitorState): Promise<string[]> {
  const [verb = "help", argument = ""] = command.trim().split(/\s+/).filter(Boolean);
  const onOff = (set: (on: boolean) => void): string[] => {
    if (argument === "on" || argument === "off") set(argument === "on");
    else if (argument) return [`${verb}: "${argument}"; on or off`];
    return [`${verb} is ${(verb === "phys" ? state.physical : state.stepInterrupts) ? "on" : "off"}`];
  };
  switch (verb) {
    case "help": return HELP;
    case "harts": return target.harts.map((core, n) => `hart ${n}: ${target.status(n)}, ${["U", "S", "?", "M"][core.privilege]}-mode`);
    case "walk": {
      const address = /^(0x[0-9a-f]{1,16}|\d{1,19})$/i.test(argument) ? BigInt.asUintN(64, BigInt(argument)) : undefined;
      if (address === undefined) return [`walk: "${argument}" is not an address, such as 0xffffffff80000000`];
      return walkText(address, await view.walk(hart, address));
    }
    case "phys": return onOff((on) => (state.physical = on));
    case "step-interrupts": return onOff((on) => (state.stepInterrupts = on));
    case "csr": {
      const number = /^(0x[0-9a-f]+|\d+)$/i.test(argument) ? Number(argument) : CSR_BY_NAME.get(argument)?.number;
      const value = number === undefined ? undefined : hart.readOne(number);
      return [value === undefined ? `csr: there is no "${argument}"` : `${csrRow(number!)!.name} = 0x${value.toString(16)}`];
    }
    default: return [`"${verb.slice(0, 40)}" is no monitor command; these are:`, ...HELP];
  }
}
