import { DEVICE_SUITE } from "@polyvisor/conformance/suites/device-bus";
import { testConformance } from "@polyvisor/testkit/conformance";
import { rig } from "./testing/rig.ts";

testConformance(DEVICE_SUITE, async () => (await rig()).service, { features: ["memory"] });
