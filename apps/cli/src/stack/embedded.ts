import { join } from "node:path";
import { localPort } from "@polyvisor/contracts";
import { CPU } from "@polyvisor/contracts/cpu";
import { DEVICE } from "@polyvisor/contracts/device";
import { createGrpcServer, serveGrpc } from "@polyvisor/contracts/grpc";
import { IMAGE } from "@polyvisor/contracts/image";
import { KIT } from "@polyvisor/contracts/kit";
import { MEDIATION } from "@polyvisor/contracts/mediation";
import { MEMORY } from "@polyvisor/contracts/memory";
import { NETWORK } from "@polyvisor/contracts/network";
import { ORCHESTRATOR } from "@polyvisor/contracts/orchestrator";
import * as cpuEmulator from "@polyvisor/cpu-emulator";
import * as deviceBus from "@polyvisor/device-bus";
import * as imageRegistry from "@polyvisor/image-registry";
import * as memoryManager from "@polyvisor/memory-manager";
import * as networkFabric from "@polyvisor/network-fabric";
import * as orchestrator from "@polyvisor/orchestrator";
import { createLocalBus, hostService, listen, parseConfig, type ServiceContext, type ServiceHost, SYSTEM_CLOCK } from "@polyvisor/service-kit";
import type { Logger } from "pino";
import type { Home, StackPaths } from "./home.ts";
import type { RunningStack } from "./running-stack.ts";

/**
 * The embedded topology: all six services in this process, each behind a chain of its own, calling each other directly.
 * Their contracts are also served on one socket, for `hv` and for whoever wants to look.
 */
export async function start(home: Home, paths: StackPaths, log: Logger): Promise<RunningStack> {
  const events = createLocalBus(log);
  const closers: (() => unknown)[] = [() => events.close()];
  const contextOf = (service: string): ServiceContext => ({ log: log.child({ service }), events, clock: SYSTEM_CLOCK });
  const hosts = new Map<string, ServiceHost>();
  const host = (service: string): ServiceHost => {
    const made = hostService(service, { version: "0.1.0", address: "in-process", pid: process.pid }, contextOf(service));
    hosts.set(service, made);
    return made;
  };
  const close = async (): Promise<void> => {
    for (const step of closers.splice(0).toReversed()) await Promise.try(step).catch((error: unknown) => log.error({ err: error }, "a service did not stop cleanly"));
  };
  const started = <S extends { close(): Promise<void> }>(service: S): S => {
    closers.push(() => service.close());
    return service;
  };

  // device-bus and cpu-emulator call each other, so every service gets ports that are bound when the callee is there.
  const cpu = localPort(CPU);
  const memory = localPort(MEMORY);
  const devices = localPort(DEVICE);
  const network = localPort(NETWORK);
  const images = localPort(IMAGE);
  try {
    const registry = started(await imageRegistry.createService(parseConfig(imageRegistry.CONFIG, ["--state-dir", home.registry]), {}, contextOf("image-registry")));
    images.bind(host("image-registry").attach(registry));

    const fabric = started(await networkFabric.createService({ ...networkFabric.DEFAULT_CONFIG, stateDir: paths.state }, {}, contextOf("network-fabric")));
    network.bind(host("network-fabric").attach(fabric));

    const manager = started(await memoryManager.createService({ ...memoryManager.DEFAULT_CONFIG, sharedLeases: true, mappedLeases: false }, { images: images.port }, contextOf("memory-manager")));
    memory.bind(host("memory-manager").attach(manager));

    const bus = started(
      await deviceBus.createService(deviceBus.DEFAULT_CONFIG, { memory: memory.port, images: images.port, network: network.port, cpu: cpu.port }, contextOf("device-bus")),
    );
    devices.bind(host("device-bus").attach(bus));

    const emulator = started(
      await cpuEmulator.createService({ ...cpuEmulator.DEFAULT_CONFIG, translationKey: home.translationKey }, { memory: memory.port, devices: devices.port, images: images.port, sharedMemory: manager.sharedMemory }, contextOf("cpu-emulator")),
    );
    cpu.bind(host("cpu-emulator").attach(emulator));

    const own = host("orchestrator");
    const services = new Map([...hosts].map(([service, { side }]) => [service, side]));
    const config = { ...parseConfig(orchestrator.CONFIG, ["--state-dir", paths.state], {}), topology: "embedded" };
    const ports = { cpu: cpu.port, memory: memory.port, devices: devices.port, network: network.port, images: images.port };
    const api = own.attach(started(await orchestrator.createService(config, { ...ports, services }, contextOf("orchestrator"))));

    // A destroyed machine leaves no counters in any chain.
    events.subscribe("pv.v1.*.orchestrator.machine-destroyed", ({ machine }) => {
      for (const { chain } of hosts.values()) chain.forget(machine);
    });

    const server = createGrpcServer();
    serveGrpc(server, ORCHESTRATOR, api);
    serveGrpc(server, CPU, ports.cpu);
    serveGrpc(server, MEMORY, ports.memory);
    serveGrpc(server, DEVICE, ports.devices);
    serveGrpc(server, NETWORK, ports.network);
    serveGrpc(server, IMAGE, ports.images);
    serveGrpc(server, KIT, own.side.kit);
    serveGrpc(server, MEDIATION, own.side.mediation);
    const address = await listen(server, `unix:${join(paths.run, "stack.sock")}`);
    closers.push(() => server.forceShutdown());
    return { orchestrator: api, addresses: { orchestrator: address, images: address, network: address }, processes: () => [], onChange: () => {}, close };
  } catch (error) {
    await close();
    throw error;
  }
}
