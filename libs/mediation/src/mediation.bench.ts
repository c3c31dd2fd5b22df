import { test } from "vitest";
import { MediationChain, RuleSet, type MediationPoint } from "./index.ts";

// Cost of one message through the chain; `npm run bench` reports the same beside the other figures.
const point: MediationPoint = { service: "device-bus", plane: "exits", method: "exits", direction: "request" };
const message = { machine: "m", hart: 0, id: 1n, exit: { $case: "mmioRead", value: { address: 0x1000_0005n, size: 1 } } };

function through(rules: RuleSet): () => void {
  const chain = new MediationChain(rules);
  const counters = chain.countersOf(point, "m");
  let delivered = 0;
  const handling = { deliver: () => void delivered++, deny() {}, drop() {} };
  return () => chain.pass(point, counters, "m", message, handling);
}
function withRules(count: number, rule: Parameters<RuleSet["add"]>[0]): RuleSet {
  const rules = new RuleSet();
  for (let i = 0; i < count; i++) rules.add(rule);
  return rules;
}

test("mediation chain, one message", async ({ bench }) => {
  const miss = { action: "deny", plane: "exits", expression: "message.mmioRead.address == 0x10001000" } as const;
  await bench("no rule", through(new RuleSet())).run();
  await bench("1 rule of another plane", through(withRules(1, { action: "deny", plane: "blocks" }))).run();
  await bench("1 rule with an expression", through(withRules(1, miss))).run();
  await bench("10 rules of another plane", through(withRules(10, { action: "deny", plane: "blocks" }))).run();
  await bench("10 rules with expressions", through(withRules(10, miss))).run();
  await bench("1 rule that modifies", through(withRules(1, { action: "modify", assign: { "mmioRead.address": "message.mmioRead.address + 8" } }))).run();
});
