import { ContractError, type Implementation, type Sink } from "@polyvisor/contracts";
import { Action, MEDIATION, type PlaneCounters, type Rule as RuleMessage, type TraceEntry } from "@polyvisor/contracts/mediation";
import { ACTIONS, RuleError, type ActionName, type InstalledRule, type MediationChain, type Observation, type Rule, type RuleSet } from "@polyvisor/mediation";
import type { Clock } from "./service.ts";

const ACTION_OF = Object.fromEntries(ACTIONS.map((name) => [name, Action[name.toUpperCase() as keyof typeof Action]])) as Record<ActionName, Action>;
const NAME_OF = new Map(Object.entries(ACTION_OF).map(([name, action]) => [action, name as ActionName]));

/** Observations that wait to be sent to one trace reader; beyond that they are lost and counted. */
const TRACE_QUEUE_MAX = 2048;
const TRACE_BYTES_MAX = 256;

/** The MediationService of one process: the contract over its chain and rule set. */
export function createMediationService(
  chain: MediationChain,
  rules: RuleSet,
  service: string,
  clock: Pick<Clock, "now">,
): Implementation<typeof MEDIATION.definition> {
  return {
    addRule: ({ rule }) => {
      if (!rule) throw new ContractError("invalid", "addRule: rule is missing");
      const installed = guarded(() => rules.add(ruleOf(rule)));
      return { rule: messageOf(service, { rule: installed, hits: 0n, errors: 0n, digest: "" }) };
    },
    removeRule: ({ id }) => ({ removed: rules.remove(id) }),
    listRules: () => ({ rules: rules.list().map((installed) => messageOf(service, installed)) }),
    readCounters: ({ machine }) => ({ planes: countersOf(chain, machine) }),
    trace: ({ machine, plane, expression }, out) => {
      const feed = new TraceFeed(out, clock);
      const stop = guarded(() => rules.observe({ machine, plane, expression }, (observation) => feed.take(observation)));
      out.onClose(stop);
    },
  };
}

function guarded<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof RuleError) throw new ContractError("invalid", `rule: ${error.message}`, { cause: error });
    throw error;
  }
}

function ruleOf(message: RuleMessage): Rule {
  const action = NAME_OF.get(message.action);
  if (!action) throw new ContractError("invalid", `rule: action ${message.action} is unknown; expected one of ${ACTIONS.join(", ")}`);
  const { id, plane, method, machine, direction, expression, delayMs, seed } = message;
  return { id, plane, method, machine, direction, expression, action, assign: Object.fromEntries(message.assign), delayMs, seed };
}

function messageOf(service: string, { rule, hits, digest }: InstalledRule): RuleMessage {
  return {
    id: rule.id,
    plane: rule.plane ?? "",
    method: rule.method ?? "",
    machine: rule.machine ?? "",
    direction: rule.direction ?? "",
    expression: rule.expression ?? "",
    action: ACTION_OF[rule.action],
    assign: new Map(Object.entries(rule.assign ?? {})),
    delayMs: rule.delayMs ?? 0,
    seed: rule.seed ?? 0n,
    hits,
    service,
    digest,
  };
}

/** One entry per method, both directions together. An empty machine means all of them. */
function countersOf(chain: MediationChain, machine: string): PlaneCounters[] {
  const byMethod = new Map<string, PlaneCounters>();
  for (const { point, counters } of chain.read(machine || undefined)) {
    const key = `${point.service}/${point.method}`;
    let sum = byMethod.get(key);
    if (!sum) {
      const { plane, method, service } = point;
      byMethod.set(key, (sum = { plane, method, service, seen: 0n, executed: 0n, denied: 0n, dropped: 0n, modified: 0n, duplicated: 0n }));
    }
    for (const name of ["seen", "executed", "denied", "dropped", "modified", "duplicated"] as const) sum[name] += BigInt(counters[name]);
  }
  return [...byMethod.values()];
}

/** Takes observations at once and sends them later, so that a guest waits neither for JSON nor for the reader. */
class TraceFeed {
  readonly #out: Sink<TraceEntry>;
  readonly #clock: Pick<Clock, "now">;
  #queue: { at: number; observation: Observation }[] = [];
  #lost = 0n;
  #scheduled = false;
  #blocked = false;

  constructor(out: Sink<TraceEntry>, clock: Pick<Clock, "now">) {
    this.#out = out;
    this.#clock = clock;
    out.onDrain(() => {
      this.#blocked = false;
      this.#schedule();
    });
  }

  take(observation: Observation): void {
    const { method, direction } = observation.point;
    if (method === "trace" && direction === "response") return; // or each entry would make another, larger one
    if (this.#queue.length >= TRACE_QUEUE_MAX) return void this.#lost++;
    this.#queue.push({ at: this.#clock.now(), observation });
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#blocked) return;
    this.#scheduled = true;
    setImmediate(() => this.#send());
  }

  #send(): void {
    this.#scheduled = false;
    const queue = this.#queue;
    this.#queue = [];
    for (const [index, { at, observation }] of queue.entries()) {
      const { point, machine, message, verdict } = observation;
      const { service, plane, method, direction } = point;
      const entry = { timeMs: at, service, plane, method, machine, direction, verdict, messageJson: traceJson(message), lost: this.#lost };
      this.#lost = 0n;
      if (!this.#out.send(entry)) {
        this.#blocked = true;
        this.#queue = queue.slice(index + 1);
        return;
      }
    }
  }
}

/** A message as JSON for people: 64-bit integers as strings, bytes as base64 of their first 256, oneofs by case name. */
export function traceJson(message: unknown): string {
  return JSON.stringify(readable(message));
}

function readable(value: any): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Uint8Array) {
    const shown = Buffer.from(value.buffer, value.byteOffset, Math.min(value.length, TRACE_BYTES_MAX)).toString("base64");
    return value.length > TRACE_BYTES_MAX ? `${shown}… (${value.length} bytes)` : shown;
  }
  if (Array.isArray(value)) return value.map(readable);
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, entry]) => [String(key), readable(entry)]));
  if (typeof value !== "object" || value === null) return value;
  const fields: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(value) as [string, any][]) {
    if (typeof field === "object" && field !== null && "$case" in field) fields[field.$case] = readable(field.value);
    else if (field !== undefined) fields[name] = readable(field);
  }
  return fields;
}
