import { mediated } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import { MEMORY_SUITE } from "@polyvisor/conformance/suites/memory-manager";
import { describe, it } from "vitest";
import { createService, DEFAULT_CONFIG } from "./index.ts";
import { testContext } from "./testing/context.ts";

describe("memory-manager conformance (local adapter)", () => {
  for (const { requirement, title, run } of MEMORY_SUITE.cases) {
    it(`${requirement}: ${title}`, async () => {
      const service = await createService(DEFAULT_CONFIG, { images: {} as ImagePort }, testContext());
      await run(mediated(service.contract, service.implementation), {
        unique: (prefix) => `${prefix}-1`,
        within: (ms, promise, what) =>
          Promise.race([
            promise,
            new Promise<never>((_, reject) => setTimeout(() => reject(new Error(`no ${what} in ${ms} ms`)), ms).unref()),
          ]),
        features: new Set(),
      });
      await service.close();
    });
  }
});
