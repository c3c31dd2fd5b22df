import { MediationChain, RuleSet, type MediationPoint } from "@polyvisor/mediation";
import { median } from "./figures.ts";

const POINT: MediationPoint = { service: "device-bus", plane: "exits", method: "exits", direction: "request" };
const MESSAGE = { machine: "m", hart: 0, id: 1n, exit: { $case: "mmioRead", value: { address: 0x1000_0005n, size: 1 } } };
const MESSAGES = 200_000;

/** Nanoseconds that the chain adds to one exit message with `rules` rules whose expressions are evaluated and miss. */
export function mediationCostNs(rules: number): number {
  const set = new RuleSet();
  for (let i = 0; i < rules; i++) set.add({ action: "deny", plane: "exits", expression: "message.mmioRead.address == 0x10001000" });
  const chain = new MediationChain(set);
  const counters = chain.countersOf(POINT, "m");
  let delivered = 0;
  const handling = { deliver: () => void delivered++, deny() {}, drop() {} };
  const rounds: number[] = [];
  for (let round = 0; round < 7; round++) {
    const direct = timed(() => handling.deliver());
    const mediated = timed(() => chain.pass(POINT, counters, "m", MESSAGE, handling));
    if (round > 1) rounds.push(((mediated - direct) * 1e6) / MESSAGES);
  }
  return median(rounds);
}

function timed(run: () => void): number {
  const begun = performance.now();
  for (let i = 0; i < MESSAGES; i++) run();
  return performance.now() - begun;
}
