import { dirname, resolve } from "node:path";
import type { ForwardSpec, NicSpec } from "@polyvisor/contracts/orchestrator";
import { UsageError } from "../cli-error.ts";
import { TOPOLOGIES, type Topology } from "../stack/home.ts";
import { parseForward } from "./forward.ts";
import { parseNic } from "./nic.ts";

/** A machine as `hv up` describes it: on the command line, or in a machine file. */
export interface MachineOptions {
  box?: string;
  kernel?: string;
  initrd?: string;
  append?: string;
  firmware?: string;
  disk?: string;
  topology?: Topology;
  engine?: string;
  deterministic?: boolean;
  cpu?: string;
  cpus?: string;
  memory?: string;
  lease?: string;
  network?: boolean;
  net?: NicSpec[];
  forward?: ForwardSpec[];
}
export interface MachineFile extends MachineOptions {
  name?: string;
}

/** A machine file is small; what is not is something else. */
export const MACHINE_FILE_BYTES = 1024 * 1024;

const TEXTS = ["name", "box", "kernel", "initrd", "append", "firmware", "disk", "engine", "cpu", "cpus", "memory", "lease"] as const;
const PATHS = ["kernel", "initrd", "firmware", "disk"] as const;
const FLAGS = ["deterministic", "network"] as const;

/**
 * Reads a machine file: a JSON object with the names and values of `hv up`'s options, `net` and `forward` as lists of texts.
 * Files are found from the machine file's directory. Throws UsageError that names the key.
 */
export function parseMachineFile(text: string, path: string): MachineFile {
  const refuse = (what: string) => new UsageError(`${path}: ${what}`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw refuse(`not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refuse("expected one JSON object");
  const entries = value as Record<string, unknown>;
  const known: readonly string[] = [...TEXTS, ...FLAGS, "topology", "net", "forward"];
  for (const key of Object.keys(entries)) if (!known.includes(key)) throw refuse(`unknown key ${JSON.stringify(key)}; there are ${known.join(", ")}`);

  const machine: MachineFile = {};
  for (const key of TEXTS) {
    const entry = entries[key];
    if (entry === undefined) continue;
    if (typeof entry !== "string" && !(typeof entry === "number" && (key === "cpus" || key === "memory"))) throw refuse(`${key}: expected a text`);
    machine[key] = String(entry);
  }
  for (const key of FLAGS) {
    const entry = entries[key];
    if (entry === undefined) continue;
    if (typeof entry !== "boolean") throw refuse(`${key}: expected true or false`);
    machine[key] = entry;
  }
  const { topology } = entries;
  if (topology !== undefined) {
    if (!TOPOLOGIES.includes(topology as Topology)) throw refuse(`topology: expected ${TOPOLOGIES.join(" or ")}`);
    machine.topology = topology as Topology;
  }
  const list = <T>(key: "net" | "forward", parse: (text: string) => T): T[] | undefined => {
    const entry = entries[key];
    if (entry === undefined) return undefined;
    if (!Array.isArray(entry) || entry.some((each) => typeof each !== "string")) throw refuse(`${key}: expected a list of texts`);
    return (entry as string[]).map((each, index) => {
      try {
        return parse(each);
      } catch (error) {
        throw refuse(`${key}[${index}]: ${(error as Error).message}`);
      }
    });
  };
  const net = list("net", parseNic);
  const forward = list("forward", parseForward);
  if (net) machine.net = net;
  if (forward) machine.forward = forward;
  for (const key of PATHS) {
    const file = machine[key];
    if (file && !(key === "firmware" && (file === "builtin" || file === "none"))) machine[key] = resolve(dirname(path), file);
  }
  return machine;
}
