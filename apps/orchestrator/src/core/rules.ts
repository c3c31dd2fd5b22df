import { asContractError, ContractError, type Sink } from "@polyvisor/contracts";
import { Action, type Rule, type TraceEntry } from "@polyvisor/contracts/mediation";
import type { TraceRequest } from "@polyvisor/contracts/orchestrator";
import { joinDigests } from "@polyvisor/mediation";
import type { ServiceSide } from "@polyvisor/service-kit";
import type { OrchestratorPeers } from "./peers.ts";

const OWN_SERVICE = "orchestrator";

/** The user's rules over the chains of all services at once: one id everywhere, all or none. */
export class Rules {
  readonly #peers: OrchestratorPeers;
  /** As added; a service that was restarted has lost its own. */
  readonly #rules = new Map<string, Rule>();

  constructor(peers: OrchestratorPeers) {
    this.#peers = peers;
  }

  async add(asked: Rule | undefined): Promise<Rule> {
    if (!asked || asked.action === Action.UNSPECIFIED) {
      throw new ContractError("invalid", "add rule: no action; expected one of observe, modify, deny, delay, drop, duplicate, corrupt, digest");
    }
    const known = await this.list();
    if (asked.id && known.some((rule) => rule.id === asked.id)) {
      throw new ContractError("already-exists", `add rule: there is a rule "${asked.id}"; remove it first (hv mediate rm ${asked.id}) or choose another id`);
    }
    const rule = { ...asked, id: asked.id || freeId(known), hits: 0n, service: "", digest: "" };
    const added: string[] = [];
    try {
      for (const [service, { mediation }] of this.#targets(rule)) {
        await mediation.addRule({ rule });
        added.push(service);
      }
    } catch (error) {
      for (const service of added) await this.#peers.services.get(service)!.mediation.removeRule({ id: rule.id }).catch(() => {});
      const { condition, message } = asContractError(error);
      throw new ContractError(condition, `add rule: ${message}; it is in no chain now`, { cause: error });
    }
    this.#rules.set(rule.id, rule);
    return { ...rule, service: added.join(",") };
  }

  async remove(id: string): Promise<boolean> {
    this.#rules.delete(id);
    let removed = false;
    const failures: string[] = [];
    for (const [service, { mediation }] of this.#peers.services) {
      try {
        if ((await mediation.removeRule({ id })).removed) removed = true;
      } catch (error) {
        failures.push(`${service}: ${asContractError(error).message}`);
      }
    }
    // A process that is gone has taken its rules with it, so an unreachable one is a failure only if none had the rule.
    if (!removed && failures.length > 0) throw new ContractError("unavailable", `remove rule ${id}: ${failures.join("; ")}`);
    return removed;
  }

  /** Every rule once, hits summed over the chains that hold it. */
  async list(): Promise<Rule[]> {
    const merged = new Map<string, Rule & { services: string[] }>();
    for (const [service, { mediation }] of this.#peers.services) {
      const answer = await mediation.listRules({}).catch(() => undefined);
      for (const rule of answer?.rules ?? []) {
        const entry = merged.get(rule.id);
        if (entry) {
          entry.hits += rule.hits;
          if (rule.digest) entry.digest = joinDigests([entry.digest, rule.digest]);
          entry.services.push(service);
        } else merged.set(rule.id, { ...rule, services: [service] });
      }
    }
    return [...merged.values()].map(({ services, ...rule }) => {
      if (!this.#rules.has(rule.id)) this.#rules.set(rule.id, { ...rule, hits: 0n, service: "", digest: "" });
      return { ...rule, service: services.join(",") };
    });
  }

  /** Puts rules back into chains that have lost them: before a machine starts, no chain may have a hole. */
  async restore(): Promise<void> {
    if (this.#rules.size === 0) return;
    for (const { mediation } of this.#peers.services.values()) {
      const present = new Set((await mediation.listRules({})).rules.map((rule) => rule.id));
      for (const rule of this.#rules.values()) if (!present.has(rule.id)) await mediation.addRule({ rule });
    }
  }

  /** Merges the live messages of all services into one stream. */
  trace(request: TraceRequest, out: Sink<TraceEntry>): void {
    let open = 0;
    let lastError: ContractError | undefined;
    const channels = [...this.#peers.services].map(([service, { mediation }]) => {
      const channel = mediation.trace(request);
      open++;
      channel.onMessage((entry) => out.send({ ...entry, service: entry.service || service }));
      channel.onClose((error) => {
        open--;
        lastError = error ?? lastError;
        // A bad expression is refused by all; a service that goes away does not end the trace of the others.
        if (error?.condition === "invalid" || open <= 0) out.close(lastError);
      });
      return channel;
    });
    out.onClose(() => {
      for (const channel of channels) channel.close();
    });
  }

  /**
   * The orchestrator's own chain gets a rule only if it names a machine or a method, or merely observes: a rule for
   * "everything" must leave the way to remove it.
   */
  #targets(rule: Rule): [string, ServiceSide][] {
    const harmless = rule.action === Action.OBSERVE || rule.action === Action.DIGEST || rule.machine !== "" || (rule.method !== "" && !/rule/i.test(rule.method));
    return [...this.#peers.services].filter(([service]) => service !== OWN_SERVICE || harmless);
  }
}

function freeId(rules: readonly Rule[]): string {
  for (let n = 1; ; n++) if (!rules.some((rule) => rule.id === `r${n}`)) return `r${n}`;
}
