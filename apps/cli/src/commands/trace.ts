import { messages } from "@polyvisor/contracts";
import type { TraceEntry } from "@polyvisor/contracts/mediation";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { parseCount } from "../format/quantity.ts";
import { planeOption } from "./mediate.ts";

interface TraceOptions {
  plane?: string;
  where?: string;
  limit?: string;
  json?: boolean;
}

export function addTraceCommand(program: Command, cli: Cli): void {
  addCommand(program, "trace <machine>", "show the messages between the services about a machine, live and decoded", [
    ["hv trace web --plane blocks", "disk requests and their answers"],
    ["hv trace web --plane exits --where 'message.mmioWrite.address == 268435456'", "what the guest writes to its UART"],
    ["hv trace web --limit 20 --json | jq .message", "for programs: one JSON object a line"],
  ])
    .addOption(planeOption())
    .option("--where <cel>", "CEL over message, plane, method, machine, direction")
    .option("--limit <n>", "leave after so many messages")
    .action(async (machine: string, options: TraceOptions) => {
      const stack = await cli.stacks.ofMachine(machine);
      const limit = options.limit === undefined ? Infinity : parseCount(options.limit, "--limit", 1, 1e9);
      let seen = 0;
      let lost = 0n;
      for await (const entry of messages(stack.orchestrator.trace({ machine, plane: options.plane ?? "", expression: options.where ?? "" }))) {
        lost += entry.lost;
        cli.print(options.json ? traceJson(entry) : traceLine(cli, entry));
        if (++seen >= limit) break;
      }
      if (lost > 0n) cli.note(`${lost} messages were not shown: the terminal was too slow for them (the guest never waits)`);
    });
}

function traceJson({ messageJson, ...entry }: TraceEntry): string {
  return JSON.stringify({ ...entry, lost: Number(entry.lost), message: parsed(messageJson) });
}

/** Long messages are cut by the service; what remains need not be JSON. */
function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return json;
  }
}

function traceLine(cli: Cli, { timeMs, service, plane, method, direction, verdict, messageJson }: TraceEntry): string {
  const time = new Date(timeMs).toISOString().slice(11, 23);
  const arrow = direction === "request" ? "→" : "←";
  const mark = verdict === "executed" ? "" : ` ${cli.color.yellow(verdict)}`;
  return `${cli.color.dim(time)} ${plane.padEnd(10)} ${arrow} ${cli.color.cyan(`${service}.${method}`)}${mark} ${messageJson}`;
}
