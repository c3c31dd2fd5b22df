import { mediated, ContractError } from "@polyvisor/contracts";
import { KIT } from "@polyvisor/contracts/kit";
import { describe, expect, it } from "vitest";
import { formatResult, formatSummary, runSuite, type ConformanceSuite } from "./index.ts";

const port = mediated(KIT, {});
const SUITE: ConformanceSuite<typeof KIT.definition> = {
  contract: KIT,
  cases: [
    { requirement: "KIT-1", title: "nothing → nothing", run: async () => {} },
    {
      requirement: "KIT-2",
      title: "describe → identity",
      run: async (kit) => void (await kit.describe({})),
    },
    { requirement: "KIT-3", title: "needs a rocket", needs: ["rocket"], run: () => Promise.reject(new Error("no fuel")) },
    { requirement: "KIT-4", title: "never ends", run: () => new Promise(() => {}) },
  ],
};
const outcomes = async (options: Parameters<typeof runSuite>[2]) =>
  (await runSuite(SUITE, port, { caseTimeoutMs: 20, ...options })).results.map((result) => result.outcome);

describe("runSuite", () => {
  it("reports passes, failures with their reason, timeouts, and what was skipped for which feature", async () => {
    const report = await runSuite(SUITE, port, { caseTimeoutMs: 20 });
    expect(report.results).toMatchObject([
      { outcome: "passed" },
      { outcome: "failed", reason: "kit.describe is not built in this implementation" },
      { outcome: "skipped", reason: "needs rocket" },
      { outcome: "failed", reason: "no end of the case within 20 ms" },
    ]);
    expect(report).toMatchObject({ ok: false, counts: { passed: 1, failed: 2, skipped: 1 } });
    expect(formatSummary(report)).toBe("kit: 1 passed, 2 failed, 1 skipped: does not conform");
    expect(formatResult(report.results[1]!)).toMatch(/^FAILED {3}KIT-2: describe → identity \(\d+ ms\)\n {9}kit\.describe is not built/);
  });

  it("runs the cases of a declared feature", async () => {
    expect(await outcomes({ features: ["rocket"], filter: "KIT-3" })).toEqual(["failed"]);
  });

  it("accepts known failures, by requirement or whole name", async () => {
    const report = await runSuite(SUITE, port, { caseTimeoutMs: 20, knownFailures: ["KIT-2", "KIT-4: never ends"] });
    expect(report).toMatchObject({ ok: true, counts: { passed: 1, "known-failure": 2, skipped: 1 } });
  });

  it("fails the run when a known failure passes, or matches no case", async () => {
    expect(await runSuite(SUITE, port, { filter: "KIT-1", knownFailures: ["KIT-1"] })).toMatchObject({ ok: false, counts: { "unexpected-pass": 1 } });
    expect(await runSuite(SUITE, port, { filter: "KIT-1", knownFailures: ["KIT-9"] })).toMatchObject({ ok: false, stale: ["KIT-9"] });
  });

  it("takes a synchronous throw of a case as its failure", async () => {
    const suite: typeof SUITE = {
      contract: KIT,
      cases: [
        {
          requirement: "KIT-1",
          title: "throws",
          run: () => {
            throw new ContractError("invalid", "at once");
          },
        },
      ],
    };
    expect((await runSuite(suite, port)).results).toMatchObject([{ outcome: "failed", reason: "at once" }]);
  });
});
