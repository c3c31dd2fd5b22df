import { NETWORK_SUITE } from "@polyvisor/conformance/suites/network-fabric";
import { testContext } from "@polyvisor/testkit";
import { testConformance } from "@polyvisor/testkit/conformance";
import { createService, DEFAULT_CONFIG } from "./index.ts";

testConformance(NETWORK_SUITE, () => createService(DEFAULT_CONFIG, {}, testContext()));
