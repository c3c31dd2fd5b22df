import { MediationChain, NO_MEDIATION, type Counters, type Direction, type MediationPoint } from "@polyvisor/mediation";
import { channelPair, type Channel } from "./channel.ts";
import { machineOf, type Contract } from "./contract.ts";
import { ContractError } from "./errors.ts";
import type { Implementation, MethodDefinition, Port, ServiceDefinition } from "./port.ts";

/**
 * A core behind its mediation chain: the only way in, for the local adapter and for the gRPC server adapter alike,
 * so nothing can bypass the chain.
 */
export function mediated<D extends ServiceDefinition>(
  contract: Contract<D>,
  implementation: Implementation<D>,
  chain: MediationChain = new MediationChain(NO_MEDIATION),
): Port<D> {
  const port: Record<string, unknown> = {};
  for (const [name, method] of Object.entries(contract.definition) as [string, MethodDefinition][]) {
    const rules = contract.methods[name] ?? { plane: "control" as const };
    const point = (direction: Direction): MediationPoint => ({
      service: contract.service,
      plane: rules.plane,
      method: name,
      direction,
    });
    const requestPoint = point("request");
    const responsePoint = point("response");
    const target = implementation[name as keyof D] as Function | undefined;
    const missing = () =>
      new ContractError("unimplemented", `${contract.service}.${name} is not built in this implementation`);

    if (!method.requestStream && !method.responseStream) {
      port[name] = (request: unknown) =>
        new Promise((resolve, reject) => {
          const machine = machineOf(request);
          const denied = (reason: string) => reject(new ContractError("denied", `${name}: denied by mediation rule ${reason}`));
          const dropped = () => reject(new ContractError("timeout", `${name}: dropped by a mediation rule`));
          chain.pass(requestPoint, chain.countersOf(requestPoint, machine), machine, request, {
            deliver: (message) => {
              if (!target) return reject(missing());
              Promise.try(() => target.call(implementation, message)).then(
                (response) =>
                  chain.pass(responsePoint, chain.countersOf(responsePoint, machine), machine, response, {
                    deliver: resolve,
                    deny: denied,
                    drop: dropped,
                  }),
                reject,
              );
            },
            deny: denied,
            drop: dropped,
          });
        });
      continue;
    }

    const open = (firstRequest?: unknown): Channel<unknown, unknown> => {
      const [caller, callerSide] = channelPair<unknown, unknown>();
      const [coreSide, core] = channelPair<unknown, unknown>();
      callerSide.onClose((error) => coreSide.close(error));
      coreSide.onClose((error) => callerSide.close(error));
      let machine = machineOf(firstRequest);
      let requests: Counters | undefined;
      let responses: Counters | undefined;
      const toCore = {
        deliver: (message: unknown) => void coreSide.send(message),
        deny: (reason: string) => {
          const answer = rules.deniedRequest?.(current, reason) ?? null;
          if (answer !== null) callerSide.send(answer);
        },
        drop: () => {},
      };
      let current: unknown;
      const request = (message: any) => {
        const id = machineOf(message);
        if (id && id !== machine) {
          machine = id;
          requests = responses = undefined;
        }
        current = message;
        chain.pass(requestPoint, (requests ??= chain.countersOf(requestPoint, machine)), machine, message, toCore);
      };
      const toCaller = {
        deliver: (message: unknown) => void callerSide.send(message),
        deny: (reason: string) => {
          const answer = rules.deniedResponse?.(currentResponse, reason) ?? null;
          if (answer !== null) callerSide.send(answer);
        },
        drop: () => {},
      };
      let currentResponse: unknown;
      coreSide.onMessage((message) => {
        currentResponse = message;
        chain.pass(responsePoint, (responses ??= chain.countersOf(responsePoint, machine)), machine, message, toCaller);
      });
      if (!target) {
        callerSide.close(missing());
        return caller;
      }
      if (method.requestStream) {
        target.call(implementation, core);
        callerSide.onMessage(request);
      } else {
        chain.pass(requestPoint, chain.countersOf(requestPoint, machine), machine, firstRequest, {
          deliver: (message) => target.call(implementation, message, core),
          deny: (reason) => callerSide.close(new ContractError("denied", `${name}: denied by mediation rule ${reason}`)),
          drop: () => {},
        });
      }
      return caller;
    };
    port[name] = method.requestStream ? () => open() : (request: unknown) => open(request);
  }
  return port as Port<D>;
}

/**
 * The local adapter, bindable late: services of one process refer to each other in a circle (device-bus ↔
 * cpu-emulator), so each gets its peers' ports first and the cores are bound after.
 */
export function localPort<D extends ServiceDefinition>(
  contract: Contract<D>,
): { port: Port<D>; bind(target: Port<D>): void } {
  let bound: Port<D> | undefined;
  const port: Record<string, unknown> = {};
  for (const name of Object.keys(contract.definition)) {
    port[name] = (...args: unknown[]) => {
      if (!bound) throw new ContractError("unavailable", `${contract.service} is not started yet`);
      return (bound as Record<string, Function>)[name]!(...args);
    };
  }
  return { port: port as Port<D>, bind: (target) => void (bound = target) };
}
