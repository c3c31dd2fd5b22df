import { mediated } from "@polyvisor/contracts";
import { DEVICE } from "@polyvisor/contracts/device";
import { MEMORY } from "@polyvisor/contracts/memory";
import { CPU_GUEST, CPU_SUITE } from "@polyvisor/conformance/suites/cpu-emulator";
import { FakeBus, FakeMemory, testContext } from "@polyvisor/testkit";
import { testConformance } from "@polyvisor/testkit/conformance";
import { createService, DEFAULT_CONFIG } from "./index.ts";

testConformance(
  CPU_SUITE,
  () => {
    const memory = new FakeMemory();
    memory.template = CPU_GUEST;
    const peers = { memory: mediated(MEMORY, memory.implementation), devices: mediated(DEVICE, new FakeBus().implementation) };
    return createService(DEFAULT_CONFIG, peers, testContext());
  },
  { features: ["bare-machine"] },
);
