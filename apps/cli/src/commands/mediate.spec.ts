import { Action } from "@polyvisor/contracts/mediation";
import { describe, expect, it } from "vitest";
import { ruleOf } from "./mediate.ts";

describe("hv mediate add", () => {
  it("turns its options into one rule", () => {
    expect(ruleOf({ plane: "blocks", machine: "web", where: "true", deny: true })).toMatchObject({ plane: "blocks", machine: "web", expression: "true", action: Action.DENY });
    expect(ruleOf({ delay: "250" })).toMatchObject({ action: Action.DELAY, delayMs: 250 });
    expect(ruleOf({ corrupt: "42" })).toMatchObject({ action: Action.CORRUPT, seed: 42n });
  });

  it("splits an assignment at its first =", () => {
    const { assign } = ruleOf({ modify: ["read.sector=0", 'data = message.data == b"a" ? b"b" : message.data'] });
    expect([...assign]).toEqual([
      ["read.sector", "0"],
      ["data", 'message.data == b"a" ? b"b" : message.data'],
    ]);
  });

  it.each([[{}], [{ deny: true, drop: true }], [{ modify: ["nothing"] }], [{ modify: ["a==b"] }], [{ delay: "-1" }]])("%j is a usage error", (options) =>
    expect(() => ruleOf(options)).toThrow(expect.objectContaining({ exitCode: 2 })),
  );
});
