import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { CPU_GUEST } from "@polyvisor/conformance/suites/cpu-emulator";
import { mediated } from "@polyvisor/contracts";
import { DEVICE } from "@polyvisor/contracts/device";
import { bindGrpc, createGrpcServer, serveGrpc } from "@polyvisor/contracts/grpc";
import { MEMORY } from "@polyvisor/contracts/memory";
import { FakeBus, FakeMemory } from "@polyvisor/testkit";

/** The feature of the cpu-emulator's suite that the neighbours provide (its CONTRACT.md, "Fixture of the suite"). */
export const NEIGHBOURS_FEATURE = "bare-machine";

/**
 * The memory-manager and device-bus that the cpu-emulator's suite expects, on sockets in a directory, so that a
 * cpu-emulator in another process can be tested with all cases. Answers what ends them.
 */
export async function serveNeighbours(directory: string): Promise<() => void> {
  mkdirSync(directory, { recursive: true });
  const memory = new FakeMemory();
  memory.template = CPU_GUEST;
  const sockets = { memory: join(directory, "memory-manager.sock"), devices: join(directory, "device-bus.sock") };
  const servers = [createGrpcServer(), createGrpcServer()] as const;
  serveGrpc(servers[0], MEMORY, mediated(MEMORY, memory.implementation));
  serveGrpc(servers[1], DEVICE, mediated(DEVICE, new FakeBus().implementation));
  await bindGrpc(servers[0], `unix:${sockets.memory}`);
  await bindGrpc(servers[1], `unix:${sockets.devices}`);
  return () => {
    for (const server of servers) server.forceShutdown();
    for (const path of Object.values(sockets)) rmSync(path, { force: true });
  };
}
