import { join } from "node:path";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { ORCHESTRATOR } from "@polyvisor/contracts/orchestrator";
import { findNatsServer, startNatsServer, type NatsServer } from "@polyvisor/service-kit";
import type { Logger } from "pino";
import type { Home, StackPaths } from "./home.ts";
import { startOf } from "./lock-file.ts";
import type { RunningStack } from "./running-stack.ts";
import { ServiceProcess } from "./service-process.ts";

/** Started together; the orchestrator follows when they answer. */
const WORKERS = ["image-registry", "network-fabric", "memory-manager", "device-bus", "cpu-emulator"] as const;

/** The processes topology: a NATS server and one process per service, over Unix sockets, supervised from here. */
export async function start(home: Home, paths: StackPaths, log: Logger): Promise<RunningStack> {
  const nats = await openNats(home, paths);
  const addressOf = (service: string): string => `unix:${join(paths.run, `${service}.sock`)}`;
  const all = [...WORKERS, "orchestrator"];
  // Every service reads what it needs of these (service-kit's names); see `<service> --help`.
  const environment = {
    NATS_URL: nats.url,
    PV_EXIT_WITH_STDIN: "true", // nobody outlives this supervisor, however it ends
    PV_REGISTRY_DIR: home.registry,
    PV_TRANSLATION_KEY: home.translationKey,
    ...Object.fromEntries(all.map((service) => [`PV_${service.replaceAll("-", "_").toUpperCase()}`, addressOf(service)])),
  };
  const listeners: (() => void)[] = [];
  const processes = all.map(
    (name) =>
      new ServiceProcess({
        name,
        main: new URL("main.ts", import.meta.resolve(`@polyvisor/${name}`)),
        environment: { ...environment, PV_LISTEN: addressOf(name), PV_STATE_DIR: name === "image-registry" ? home.registry : paths.state },
        logFile: join(paths.root, "logs", `${name}.log`),
        log,
        onChange: () => listeners.forEach((listener) => listener()),
      }),
  );
  const close = async (): Promise<void> => {
    // The orchestrator first: it must not take the end of the others for failures.
    await processes.at(-1)!.stop();
    await Promise.all(processes.slice(0, -1).map((each) => each.stop()));
    await nats.close();
  };
  try {
    await Promise.all(processes.slice(0, -1).map((each) => each.start()));
    await processes.at(-1)!.start();
  } catch (error) {
    await close();
    throw error;
  }
  const connection = connectGrpc(ORCHESTRATOR, addressOf("orchestrator"));
  return {
    orchestrator: connection.port,
    addresses: { orchestrator: addressOf("orchestrator"), images: addressOf("image-registry"), network: addressOf("network-fabric") },
    processes: () => [
      ...processes.flatMap(({ name, pid }) => (pid === undefined ? [] : [{ name, pid, started: startOf(pid), address: addressOf(name) }])),
      ...(nats.pid === undefined ? [] : [{ name: "nats-server", pid: nats.pid, started: startOf(nats.pid), address: nats.url }]),
    ],
    onChange: (listener) => void listeners.push(listener),
    close: async () => {
      connection.close();
      await close();
    },
  };
}

type Nats = Pick<NatsServer, "url" | "close"> & { readonly pid?: number };

/** The server at $NATS_URL, else one of our own. */
async function openNats(home: Home, paths: StackPaths): Promise<Nats> {
  const given = process.env["NATS_URL"];
  if (given) return { url: given, close: async () => {} };
  const found = findNatsServer(home.cache);
  if (found.path === undefined) {
    throw new Error(`the processes topology needs a nats-server: ${found.reason}. Or use a running one (NATS_URL=nats://host:4222), or --topology embedded`);
  }
  return startNatsServer(found.path, join(paths.state, "nats"));
}
