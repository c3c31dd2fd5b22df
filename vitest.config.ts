import { defineConfig } from "vitest/config";

const ONE_BY_ONE = { benchmark: { include: [] }, fileParallelism: false, testTimeout: 300_000, hookTimeout: 300_000 };

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["{apps,libs,tools}/*/src/**/*.spec.ts", "apps/*/tests/**/*.spec.ts"],
          benchmark: { include: [] },
          testTimeout: 20_000,
        },
      },
      // Guest boots, other processes, QEMU: one file at a time, so that they do not slow each other into timeouts.
      // Two lanes, which `npm test` runs side by side: what users do through hv, and the services against real peers.
      { test: { name: "e2e", include: ["apps/cli/tests/**/*.e2e.ts"], ...ONE_BY_ONE } },
      { test: { name: "peers", include: ["{apps,libs,tools}/*/{src,tests}/**/*.e2e.ts"], exclude: ["apps/cli/**"], ...ONE_BY_ONE } },
      {
        // Random programs on every engine and QEMU, for POLYVISOR_FUZZ_SECONDS: one core for as long as one likes.
        test: { name: "fuzz", include: ["apps/*/tests/**/*.fuzz.ts"], benchmark: { include: [] }, fileParallelism: false, testTimeout: 300_000 },
      },
      {
        // npx vitest bench
        test: { name: "bench", include: [], benchmark: { include: ["{apps,libs,tools}/*/src/**/*.bench.ts"] }, fileParallelism: false },
      },
    ],
  },
});
