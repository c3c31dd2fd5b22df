import { ContractError } from "@polyvisor/contracts";
import type { Impairment } from "@polyvisor/contracts/network";
import type { FramePort } from "./frame-port.ts";

const MAX_DELAY_MS = 60_000;

/** Which lines are bad, and how: by port, and by network for the ports that have nothing of their own. */
export class Impairments {
  readonly #ofPort = new Map<string, Impairment>();
  readonly #ofNetwork = new Map<string, Impairment>();

  /** Replaces what was said of the port or network before; nothing in it: a good line again. */
  set(asked: Impairment | undefined, ports: readonly FramePort[]): Impairment {
    const impairment = check(asked);
    const [table, key] = impairment.port ? [this.#ofPort, impairment.port] : [this.#ofNetwork, impairment.network];
    if (isNothing(impairment)) table.delete(key);
    else table.set(key, impairment);
    for (const port of ports) if (impairment.port ? port.info.id === key : port.info.network === key) this.apply(port);
    return impairment;
  }
  /** A port has come, or something was said of it. */
  apply(port: FramePort): void {
    port.impair(this.#of(port));
  }
  list(ports: readonly FramePort[]): Impairment[] {
    const counted = (impairment: Impairment): Impairment => {
      const counters = new Map<string, bigint>();
      for (const port of ports.filter((each) => this.#of(each) === impairment)) {
        for (const [name, value] of Object.entries(port.impairmentCounters)) counters.set(name, (counters.get(name) ?? 0n) + BigInt(value));
      }
      return { ...impairment, counters };
    };
    return [...this.#ofNetwork.values(), ...this.#ofPort.values()].map(counted);
  }
  #of({ info }: FramePort): Impairment | undefined {
    return this.#ofPort.get(info.id) ?? this.#ofNetwork.get(info.network);
  }
}

function check(impairment: Impairment | undefined): Impairment {
  const refuse = (what: string) => new ContractError("invalid", `setImpairment: ${what}`);
  if (!impairment || !impairment.port === !impairment.network) throw refuse("say either a port or a network");
  for (const field of ["loss", "duplicate", "reorder", "corrupt"] as const) {
    if (!(impairment[field] >= 0 && impairment[field] <= 1)) throw refuse(`${field} is ${impairment[field]}; give a probability, 0 to 1`);
  }
  for (const ms of [impairment.delayMs, impairment.jitterMs]) if (ms > MAX_DELAY_MS) throw refuse(`${ms} ms; at most ${MAX_DELAY_MS}`);
  if (!["", "from-guest", "to-guest"].includes(impairment.direction)) throw refuse(`direction ${JSON.stringify(impairment.direction)}; give from-guest, to-guest or nothing`);
  return { ...impairment, counters: new Map() };
}
function isNothing({ loss, duplicate, reorder, corrupt, delayMs, jitterMs }: Impairment): boolean {
  return loss + duplicate + reorder + corrupt + delayMs + jitterMs === 0;
}
