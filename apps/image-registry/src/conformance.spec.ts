import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IMAGE_SUITE } from "@polyvisor/conformance/suites/image-registry";
import { testContext } from "@polyvisor/testkit";
import { testConformance } from "@polyvisor/testkit/conformance";
import { createService } from "./index.ts";

testConformance(IMAGE_SUITE, async () => {
  const root = mkdtempSync(join(tmpdir(), "pv-images-"));
  const service = await createService({ root }, {}, testContext());
  return {
    ...service,
    async close() {
      await service.close();
      rmSync(root, { recursive: true, force: true });
    },
  };
}, { features: ["garbage-at-once"] });
