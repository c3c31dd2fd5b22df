import { DISTRIBUTION_CASES, DOCKER_REGISTRY_DEVIATIONS, runDistributionCase, runDistributionSuite } from "@polyvisor/conformance/distribution";
import { formatResult } from "@polyvisor/conformance";
import { dockerRegistryAbsent, startDockerRegistry } from "@polyvisor/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startRegistry, type TestRegistry } from "./testing/registry.ts";

describe("OCI distribution-spec 1.1", () => {
  let registry: TestRegistry;
  beforeAll(async () => void (registry = await startRegistry()));
  afterAll(() => registry[Symbol.asyncDispose]());

  it.each(DISTRIBUTION_CASES.map((each) => [each.id, each.title, each] as const))("%s: %s", async (_id, _title, testCase) => {
    await runDistributionCase(registry.url, testCase);
  });
});

const absent = dockerRegistryAbsent();
if (absent) console.log(`skipped: the distribution suite against docker-registry: ${absent}`);
describe.skipIf(absent)("the same suite against Debian's docker-registry", () => {
  it("passes but for its known deviations, so the cases ask for what another implementation does, too", { timeout: 60_000 }, async () => {
    const registry = await startDockerRegistry();
    try {
      const report = await runDistributionSuite(registry.url, { knownFailures: Object.keys(DOCKER_REGISTRY_DEVIATIONS) });
      const unexpected = report.results.filter(({ outcome }) => outcome === "failed" || outcome === "unexpected-pass");
      expect(unexpected.map(formatResult)).toEqual([]);
      expect(report.counts.passed).toBeGreaterThan(30);
    } finally {
      await registry.close();
    }
  });
});
