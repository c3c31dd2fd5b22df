import { ORCHESTRATOR_SUITE } from "@polyvisor/conformance/suites/orchestrator";
import { mediated } from "@polyvisor/contracts";
import { describe, it } from "vitest";
import { createService } from "./index.ts";
import { testContext } from "./testing/context.ts";
import { FakeServices } from "./testing/fake-services.ts";

describe("orchestrator conformance (local adapter, fake services)", () => {
  for (const { requirement, title, needs, run } of ORCHESTRATOR_SUITE.cases) {
    it.skipIf(needs?.includes("boot"))(`${requirement}: ${title}`, async () => {
      const config = { stateDir: ":memory:", topology: "embedded", network: "nat", agentTimeoutMs: 1000 };
      const service = await createService(config, new FakeServices().peers, testContext());
      let made = 0;
      await run(mediated(service.contract, service.implementation), {
        unique: (prefix) => `${prefix}-${++made}`,
        within: (ms, promise, what) =>
          Promise.race([promise, new Promise<never>((_, reject) => setTimeout(() => reject(new Error(`no ${what} in ${ms} ms`)), ms).unref())]),
        features: new Set(),
      });
      await service.close();
    });
  }
});
