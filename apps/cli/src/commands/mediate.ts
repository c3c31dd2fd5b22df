import { Action, Rule } from "@polyvisor/contracts/mediation";
import { PLANES } from "@polyvisor/mediation";
import { Option, type Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { CliError, UsageError } from "../cli-error.ts";
import { parseCount } from "../format/quantity.ts";
import { table } from "../format/table.ts";
import { TOPOLOGIES, type Topology } from "../stack/home.ts";

export interface RuleOptions {
  id?: string;
  plane?: string;
  method?: string;
  machine?: string;
  direction?: string;
  where?: string;
  observe?: boolean;
  modify?: string[];
  deny?: boolean;
  delay?: string;
  drop?: boolean;
  duplicate?: boolean;
  corrupt?: string;
  digest?: boolean;
}

/** hv mediate add|ls|rm. */
export function addMediateCommands(program: Command, cli: Cli): void {
  const mediate = program.command("mediate").description("rules on the messages between the services, while guests run");

  addCommand(mediate, "add", "add a rule to the chains of all services: what it matches, and one thing to do with it", [
    ["hv mediate add --plane blocks --machine web --where 'message.write.sector == 0' --deny", "sector 0 is write-protected: the guest gets an I/O error"],
    ["hv mediate add --plane console --direction response --where 'message.data == b\"hello\"' --modify 'data=b\"howdy\"'", "another word on the console"],
    ["hv mediate add --plane frames --machine web --drop", "the network cable is out"],
    ["hv mediate add --plane frames --where 'frame.tcp.dport == 25' --deny", "no mail: those packets alone are lost"],
    ["hv mediate add --plane frames --where 'frame.dns.name == \"web\"' --modify 'frame.dns.answers[0].address=\"10.0.2.9\"'", "a DNS answer is another"],
    ["hv mediate add --plane exits --delay 5", "a slow bus"],
  ])
    .option("--id <name>", "name of the rule (default: r1, r2, ...)")
    .addOption(planeOption())
    .option("--method <name>", "call or stream of a contract, e.g. blocks or createSpace")
    .option("--machine <name>", "only this machine's messages")
    .addOption(new Option("--direction <way>", "requests or their responses").choices(["request", "response"]))
    .option("--where <cel>", "CEL over message, plane, method, machine, direction; over frame: asked for each packet")
    .option("--observe", "only count them")
    .option("--digest", "make a digest of them, which hv mediate ls shows: two runs with the same one have sent the same messages")
    .option("--modify <field=cel>", "assign a field of the message; may be given more than once", (value: string, all: string[] = []) => [...all, value])
    .option("--deny", "refuse: the guest sees what hardware could do")
    .option("--delay <ms>", "hold them back")
    .option("--drop", "lose them")
    .option("--duplicate", "deliver them twice")
    .option("--corrupt <seed>", "flip bits of their data")
    .addOption(stackOption())
    .action(async (options: RuleOptions & { json?: boolean; topology?: Topology }) => {
      const rule = ruleOf(options);
      // A machine that is not there yet may get rules: they hold from its first message on.
      const exists = rule.machine !== "" && (await cli.stacks.findMachine(rule.machine)) !== undefined;
      const stack = exists ? await cli.stacks.ofMachine(rule.machine) : await cli.stacks.only(options.topology);
      const added = (await stack.orchestrator.addRule({ rule })).rule!;
      cli.answer(options, added, () => `rule ${cli.color.bold(added.id)} is in force; remove it with: hv mediate rm ${added.id}`);
    });

  addCommand(mediate, "ls", "list the rules and how often each has matched", [["hv mediate ls", ""]]).action(async (options: { json?: boolean }) => {
    const stacks = await cli.stacks.running();
    const lists = await Promise.all(stacks.map(async ({ orchestrator, info }) => (await orchestrator.listRules({})).rules.map((rule) => ({ ...rule, stack: info.topology }))));
    const rules = lists.flat();
    cli.answer(options, rules, () => {
      if (rules.length === 0) return "There are no rules; hv mediate add --help shows some.";
      return table(
        ["id", "stack", "action", "plane", "method", "machine", "direction", "where", "hits"],
        rules.map((rule) => [rule.id, rule.stack, actionText(rule), rule.plane || "any", rule.method || "any", rule.machine || "any", rule.direction || "both", rule.expression, rule.hits]),
      );
    });
  });

  addCommand(mediate, "rm <id>", "remove a rule from all chains", [["hv mediate rm r1", ""]]).action(async (id: string, options: { json?: boolean }) => {
    const stacks = await cli.stacks.running();
    const removed = await Promise.all(stacks.map(async ({ orchestrator }) => (await orchestrator.removeRule({ id })).removed));
    if (!removed.includes(true)) throw new CliError(`there is no rule "${id}"; hv mediate ls lists them`);
    cli.answer(options, { removed: id }, () => `rule ${id} is removed`);
  });
}

export function planeOption(): Option {
  return new Option("--plane <name>", "only this plane").choices(PLANES);
}
function stackOption(): Option {
  return new Option("--topology <name>", "stack, when more than one runs").choices(TOPOLOGIES);
}

/** The rule that the options describe; exactly one action. */
export function ruleOf(options: RuleOptions): Rule {
  const asked: [Action, boolean][] = [
    [Action.OBSERVE, options.observe ?? false],
    [Action.MODIFY, options.modify !== undefined],
    [Action.DENY, options.deny ?? false],
    [Action.DELAY, options.delay !== undefined],
    [Action.DROP, options.drop ?? false],
    [Action.DUPLICATE, options.duplicate ?? false],
    [Action.CORRUPT, options.corrupt !== undefined],
    [Action.DIGEST, options.digest ?? false],
  ];
  const actions = asked.filter(([, wanted]) => wanted).map(([action]) => action);
  if (actions.length !== 1) {
    throw new UsageError(
      `${actions.length === 0 ? "no action" : `${actions.length} actions`}; give exactly one of --observe, --digest, --modify FIELD=CEL, --deny, --delay MS, --drop, --duplicate, --corrupt SEED`,
    );
  }
  return Rule.fromPartial({
    id: options.id ?? "",
    plane: options.plane ?? "",
    method: options.method ?? "",
    machine: options.machine ?? "",
    direction: options.direction ?? "",
    expression: options.where ?? "",
    action: actions[0]!,
    assign: new Map((options.modify ?? []).map(parseAssignment)),
    delayMs: options.delay === undefined ? 0 : parseCount(options.delay, "--delay", 1, 600_000),
    seed: options.corrupt === undefined ? 0n : BigInt(parseCount(options.corrupt, "--corrupt", 0, Number.MAX_SAFE_INTEGER)),
  });
}

function parseAssignment(text: string): [field: string, expression: string] {
  const at = text.indexOf("=");
  if (at <= 0 || at === text.length - 1 || text[at + 1] === "=") throw new UsageError(`--modify "${text}"; expected FIELD=CEL, e.g. read.sector=0`);
  return [text.slice(0, at).trim(), text.slice(at + 1).trim()];
}

function actionText(rule: Rule): string {
  const name = Object.entries(Action).find(([, value]) => value === rule.action)?.[0] ?? "?";
  const detail = rule.action === Action.DELAY ? ` ${rule.delayMs} ms` : rule.action === Action.MODIFY ? ` ${[...rule.assign].map(([field, cel]) => `${field}=${cel}`).join(", ")}` : "";
  return name.toLowerCase() + (rule.digest ? ` ${rule.digest}` : detail);
}
