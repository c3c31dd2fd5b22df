import type { ServiceDefinition } from "@polyvisor/contracts";
import { createEnvironment, missingFeatures, type ConformanceSuite } from "@polyvisor/conformance";
import { describe, it } from "vitest";
import { ADAPTERS, type Served } from "./adapters.ts";

export interface ConformanceTarget<D extends ServiceDefinition> extends Served<D> {
  close(): Promise<void>;
}

/**
 * Runs a suite on a service through both adapters, one vitest test per case, each on a freshly started service:
 *
 *     testConformance(MEMORY_SUITE, () => createService(CONFIG, { images }, testContext()));
 */
export function testConformance<D extends ServiceDefinition>(
  suite: ConformanceSuite<D>,
  start: () => Promise<ConformanceTarget<D>>,
  options: { features?: Iterable<string>; timeoutMs?: number } = {},
): void {
  const environment = createEnvironment(new Set(options.features));
  for (const adapter of ADAPTERS) {
    describe(`${suite.contract.service} conformance, ${adapter.name}`, () => {
      for (const testCase of suite.cases) {
        const missing = missingFeatures(testCase, environment.features);
        const title = `${testCase.requirement}: ${testCase.title}`;
        if (missing.length > 0) {
          it.skip(`${title} (needs ${missing.join(", ")})`, () => {});
          continue;
        }
        it(title, { timeout: options.timeoutMs ?? 30_000 }, async () => {
          const service = await start();
          const { port, close } = await adapter.connect(service);
          try {
            await testCase.run(port, environment);
          } finally {
            await close();
            await service.close();
          }
        });
      }
    });
  }
}
