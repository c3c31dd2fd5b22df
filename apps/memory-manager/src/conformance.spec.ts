import type { ImagePort } from "@polyvisor/contracts/image";
import { MEMORY_SUITE } from "@polyvisor/conformance/suites/memory-manager";
import { testContext } from "@polyvisor/testkit";
import { testConformance } from "@polyvisor/testkit/conformance";
import { createService, DEFAULT_CONFIG } from "./index.ts";

testConformance(MEMORY_SUITE, () => createService(DEFAULT_CONFIG, { images: {} as ImagePort }, testContext()));
