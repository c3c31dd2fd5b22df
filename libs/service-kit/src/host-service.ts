import { localPort, mediated, type Port, type ServiceDefinition } from "@polyvisor/contracts";
import { KIT, type KitPort } from "@polyvisor/contracts/kit";
import { MEDIATION, type MediationPort } from "@polyvisor/contracts/mediation";
import { MediationChain, RuleSet } from "@polyvisor/mediation";
import type { Logger } from "pino";
import { createKitService, type ServiceIdentity } from "./kit-service.ts";
import { createMediationService } from "./mediation-service.ts";
import type { Clock, RunningService } from "./service.ts";

/** What every Polyvisor service offers beside its own contract, as the orchestrator holds it. */
export interface ServiceSide {
  readonly address: string;
  readonly kit: KitPort;
  readonly mediation: MediationPort;
  /** Resolves when calls of its contract's port would reach it; absent in its own process. */
  ready?(): Promise<void>;
}

/** A place for one service in this process: its chain, and its side ports, which exist before the service does. */
export interface ServiceHost {
  readonly chain: MediationChain;
  readonly rules: RuleSet;
  readonly side: ServiceSide;
  /** Puts the started service behind the chain: the port that everybody else uses, local or through `serveGrpc`. */
  attach<D extends ServiceDefinition>(running: RunningService<D>): Port<D>;
}

/**
 * Hosts one service of this process; each has its own chain. The side ports are not mediated, so that no rule can lock
 * out who would remove it.
 */
export function hostService(service: string, identity: ServiceIdentity, context: { clock: Clock; log: Logger }): ServiceHost {
  const rules = new RuleSet((id, reason) => context.log.warn({ rule: id, reason }, "a mediation rule failed and is skipped"));
  const chain = new MediationChain(rules);
  const kit = localPort(KIT);
  return {
    chain,
    rules,
    side: {
      address: identity.address,
      kit: kit.port,
      mediation: mediated(MEDIATION, createMediationService(chain, rules, service, context.clock)),
    },
    attach(running) {
      kit.bind(mediated(KIT, createKitService(running, identity, context.clock)));
      return mediated(running.contract, running.implementation, chain);
    },
  };
}
