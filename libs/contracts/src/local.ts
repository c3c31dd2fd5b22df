import { Lane, MediationChain, NO_MEDIATION, type Counters, type Direction, type Handling, type MediationPoint } from "@polyvisor/mediation";
import { keepTakenBytes } from "./byte-pool.ts";
import { channelPair, type Channel } from "./channel.ts";
import { machineOf, type Contract, type MethodContract } from "./contract.ts";
import { asContractError, ContractError } from "./errors.ts";
import { DEFAULT_TIMEOUT_MS, type CallOptions, type Implementation, type MethodDefinition, type Port, type ServiceDefinition } from "./port.ts";

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
    const rules: MethodContract = (contract.methods as Record<string, MethodContract>)[name] ?? { plane: "control" };
    const point = (direction: Direction): MediationPoint => ({
      service: contract.service,
      plane: rules.plane,
      method: name,
      direction,
    });
    const target = implementation[name as keyof D] as Function | undefined;
    const call: MediatedCall = {
      name: `${contract.service}.${name}`,
      rules,
      chain,
      requestPoint: point("request"),
      responsePoint: point("response"),
      // A method that is left out is still counted and traced before it answers "unimplemented".
      core: target ? (...args) => target.apply(implementation, args) : undefined,
    };
    port[name] =
      !method.requestStream && !method.responseStream
        ? (request: unknown, options?: CallOptions) => unaryCall(call, request, options)
        : method.requestStream
          ? (options?: CallOptions) => openChannel(call, undefined, true, options)
          : (request: unknown, options?: CallOptions) => openChannel(call, request, false, options);
  }
  return port as Port<D>;
}

interface MediatedCall {
  readonly name: string;
  readonly rules: MethodContract;
  readonly chain: MediationChain;
  readonly requestPoint: MediationPoint;
  readonly responsePoint: MediationPoint;
  readonly core: ((...args: unknown[]) => unknown) | undefined;
}

const unimplemented = (call: MediatedCall) => new ContractError("unimplemented", `${call.name} is not built in this implementation`);
const denied = (call: MediatedCall, reason: string) => new ContractError("denied", `${call.name}: denied by mediation rule ${reason}`);
// Nobody answers a dropped request; the caller is told at once instead of at its deadline.
const dropped = (call: MediatedCall) => new ContractError("timeout", `${call.name}: dropped by a mediation rule`);

function unaryCall(call: MediatedCall, request: unknown, options: CallOptions | undefined): Promise<unknown> {
  const { chain, requestPoint, responsePoint, core } = call;
  return new Promise((resolvePromise, rejectPromise) => {
    const finish = limit(call, options, options?.timeoutMs ?? DEFAULT_TIMEOUT_MS, rejectPromise);
    const resolve = (value: unknown) => (finish(), resolvePromise(value));
    const reject = (error: unknown) => (finish(), rejectPromise(asContractError(error)));
    const machine = machineOf(request);
    const refused = {
      deny: (reason: string) => reject(denied(call, reason)),
      drop: () => reject(dropped(call)),
    };
    const answer: Handling<unknown> = { deliver: resolve, ...refused };
    chain.pass(requestPoint, chain.countersOf(requestPoint, machine), machine, request, {
      deliver: (message) => {
        if (!core) return reject(unimplemented(call));
        Promise.try(core, message).then(
          (response) => chain.pass(responsePoint, chain.countersOf(responsePoint, machine), machine, response, answer),
          reject,
        );
      },
      ...refused,
    });
  });
}

/** Deadline and abort signal of one call. The answer disarms them. */
function limit(call: MediatedCall, options: CallOptions | undefined, timeoutMs: number, fail: (error: ContractError) => void): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  if (Number.isFinite(timeoutMs)) {
    timer = setTimeout(() => {
      finish();
      fail(new ContractError("timeout", `${call.name}: no answer within ${timeoutMs} ms`));
    }, timeoutMs);
  }
  const signal = options?.signal;
  const abort = () => {
    finish();
    fail(new ContractError("cancelled", `${call.name}: cancelled by its caller`));
  };
  const finish = () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  };
  if (signal?.aborted) abort();
  else signal?.addEventListener("abort", abort);
  return finish;
}

/** caller ═ callerSide ─ chain ─ coreSide ═ core: two pairs of ends with the mediation chain between them. */
function openChannel(call: MediatedCall, firstRequest: unknown, bidi: boolean, options: CallOptions | undefined): Channel<unknown, unknown> {
  const { chain, rules, requestPoint, responsePoint, core } = call;
  const [caller, callerSide] = channelPair<unknown, unknown>();
  if (!core) {
    callerSide.close(unimplemented(call));
    return caller;
  }
  const [coreSide, coreEnd] = channelPair<unknown, unknown>();
  let machine = machineOf(firstRequest);
  let requests: Counters | undefined;
  let responses: Counters | undefined;
  const answerDenied = (answer: unknown) => {
    if (answer !== undefined && answer !== null) callerSide.send(answer);
  };
  const toCore = {
    lane: new Lane(),
    deliver: (message: unknown) => {
      if (!coreSide.send(message) && !coreSide.closed) callerSide.slow(true);
    },
    deny: (reason: string, message: unknown) => {
      answerDenied(rules.deniedRequest?.(message, reason));
      if (rules.lost) coreSide.send(rules.lost(message));
    },
    drop: (message: unknown) => {
      if (rules.lost) coreSide.send(rules.lost(message));
    },
  };
  const toCaller = {
    lane: new Lane(),
    deliver: (message: unknown) => {
      if (!callerSide.send(message) && !callerSide.closed) coreSide.slow(true);
    },
    deny: (reason: string, message: unknown) => {
      answerDenied(rules.deniedResponse?.(message, reason));
      if (rules.lost) callerSide.send(rules.lost(message));
    },
    drop: (message: unknown) => {
      if (rules.lost) callerSide.send(rules.lost(message));
    },
  };
  coreSide.onDrain(() => callerSide.slow(false));
  callerSide.onDrain(() => coreSide.slow(false));
  const disarm = limit(call, options, options?.timeoutMs ?? Infinity, (error) => caller.close(error));
  callerSide.onClose((error) => {
    disarm();
    toCore.lane.enter(() => coreSide.close(error));
  });
  coreSide.onClose((error) => toCaller.lane.enter(() => callerSide.close(error)));
  coreSide.onMessage((message) => {
    if (chain.mediator.active) keepTakenBytes();
    chain.pass(responsePoint, (responses ??= chain.countersOf(responsePoint, machine)), machine, message, toCaller);
  });
  const start = (...args: unknown[]) => {
    try {
      core(...args);
    } catch (error) {
      coreSide.close(asContractError(error));
    }
  };
  if (bidi) {
    start(coreEnd);
    callerSide.onMessage((message) => {
      const id = machineOf(message);
      if (id && id !== machine) {
        machine = id;
        requests = responses = undefined;
      }
      if (chain.mediator.active) keepTakenBytes();
      chain.pass(requestPoint, (requests ??= chain.countersOf(requestPoint, machine)), machine, message, toCore);
    });
  } else {
    let started = false;
    chain.pass(requestPoint, chain.countersOf(requestPoint, machine), machine, firstRequest, {
      deliver: (message) => {
        if (started) return; // duplicated: one stream has one opening
        started = true;
        start(message, coreEnd);
      },
      deny: (reason) => callerSide.close(denied(call, reason)),
      drop: () => callerSide.close(dropped(call)),
    });
  }
  return caller;
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
  for (const [name, method] of Object.entries(contract.definition) as [string, MethodDefinition][]) {
    const early = () => new ContractError("unavailable", `${contract.service}.${name}: the service is not started yet`);
    port[name] = (...args: unknown[]) => {
      if (bound) return (bound as Record<string, Function>)[name]!(...args);
      if (!method.requestStream && !method.responseStream) return Promise.reject(early());
      const [caller, other] = channelPair();
      other.close(early());
      return caller;
    };
  }
  return { port: port as Port<D>, bind: (target) => void (bound = target) };
}
