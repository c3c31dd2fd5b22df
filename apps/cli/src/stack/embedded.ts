import { createService as createCpuEmulator } from "@polyvisor/cpu-emulator";
import { createService as createDeviceBus } from "@polyvisor/device-bus";
import { createService as createImageRegistry } from "@polyvisor/image-registry";
import { createService as createMemoryManager } from "@polyvisor/memory-manager";
import { createService as createNetworkFabric } from "@polyvisor/network-fabric";
import { createService as createOrchestrator } from "@polyvisor/orchestrator";
