import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asContractError, type Contract, type MethodDefinition, type Port, type ServiceDefinition } from "@polyvisor/contracts";
import { connectGrpc, createGrpcServer, serveGrpc, type GrpcConnection } from "@polyvisor/contracts/grpc";
import { KIT } from "@polyvisor/contracts/kit";
import { MEDIATION } from "@polyvisor/contracts/mediation";
import { HealthImplementation } from "grpc-health-check";
import type { Logger } from "pino";
import { SYSTEM_CLOCK } from "./clock.ts";
import { address, choice, defineConfig, describeConfig, parseConfig, text, toggle, type ConfigSchema, type Option } from "./config.ts";
import type { EventBus } from "./events.ts";
import { hostService, type ServiceSide } from "./host-service.ts";
import { listen, socketFile } from "./listen.ts";
import { createLocalBus } from "./local-bus.ts";
import { createLogger, type LogLevel } from "./logging.ts";
import { connectNatsBus } from "./nats-bus.ts";
import { addReflection } from "./reflection.ts";
import type { RunningService, ServiceContext } from "./service.ts";

type PeerContracts = { readonly [name: string]: Contract<any> };
export type PeerPorts<P extends PeerContracts> = { readonly [K in keyof P]: Port<P[K]["definition"]> };

/** What `main.ts` of a service says about it. */
export interface ServiceProgram<C, P extends PeerContracts, D extends ServiceDefinition> {
  /** As in `apps/`, e.g. "memory-manager". */
  readonly name: string;
  /** One line for --help. */
  readonly about: string;
  readonly version?: string;
  readonly config: ConfigSchema<C>;
  /** The services it calls, under the names that `create` expects: `{ images: IMAGE }`. */
  readonly peers: P;
  /** `services`: kit and mediation ports of every peer and of the service itself, by service name. */
  create(config: C, peers: PeerPorts<P>, context: ServiceContext, services: ReadonlyMap<string, ServiceSide>): Promise<RunningService<D>>;
}

const SHUTDOWN_MS = 5_000;
/** How long open calls may take to end once the service has closed. */
const DRAIN_MS = 500;

/** Where a service listens, and its peers expect it, unless told otherwise. */
export function defaultAddress(service: string, env: NodeJS.ProcessEnv = process.env): string {
  return `unix:${join(env["XDG_RUNTIME_DIR"] || join(tmpdir(), `polyvisor-${process.getuid?.() ?? "user"}`), `${service}.sock`)}`;
}

interface CommonConfig {
  listen: string;
  nats: string;
  logLevel: LogLevel;
  exitWithStdin: boolean;
}

/**
 * Runs one service as a process: configuration from flags and environment, peers over gRPC, its contract served behind
 * the mediation chain together with MediationService, KitService, gRPC health and reflection; prints
 * `ready <service> <address>` on standard output, and ends on SIGTERM or SIGINT within five seconds. Never throws.
 */
export async function runService<C, P extends PeerContracts, D extends ServiceDefinition>(program: ServiceProgram<C, P, D>): Promise<void> {
  const schema = fullSchema(program);
  if (process.argv.includes("--help")) return void process.stdout.write(describeConfig(`${program.name}: ${program.about}`, schema));
  let log: Logger = createLogger(program.name);
  try {
    const config = parseConfig(schema) as C & CommonConfig & Record<string, string>;
    log = createLogger(program.name, config.logLevel);
    const stop = await start(program, config, log);
    stopOnSignals(stop, config.exitWithStdin, log);
  } catch (error) {
    const failure = asContractError(error);
    log.fatal(failure.condition === "internal" ? { err: failure.cause ?? failure } : {}, `cannot start: ${failure.message}`);
    process.exit(failure.condition === "invalid" ? 2 : 1);
  }
}

function fullSchema(program: ServiceProgram<any, any, any>): ConfigSchema<any> {
  const common = defineConfig<CommonConfig>({
    listen: { doc: "where to serve", type: address, default: defaultAddress(program.name) },
    nats: { doc: "NATS server that facts go to; none: they stay in this process", type: text, default: "", env: "NATS_URL" },
    logLevel: { doc: "least important log lines shown", type: choice("trace", "debug", "info", "warn", "error", "fatal", "silent"), default: "info" },
    exitWithStdin: { doc: "end when standard input closes, as when the parent is gone", type: toggle, default: false },
  });
  const peers: Record<string, Option<string>> = {};
  for (const { service } of Object.values(program.peers) as Contract<any>[]) {
    peers[service] = { doc: `where the ${service} serves`, type: address, default: defaultAddress(service) };
  }
  return { ...program.config, ...peers, ...common };
}

/** Starts everything; the answer stops it. On failure nothing stays behind. */
async function start<C>(program: ServiceProgram<C, any, any>, config: C & CommonConfig & Record<string, string>, log: Logger): Promise<() => Promise<void>> {
  const closers: (() => unknown)[] = [];
  const stop = async () => {
    for (const close of closers.splice(0).reverse()) {
      await Promise.try(close).catch((error) => log.error({ err: error }, "shutdown step failed"));
    }
  };
  try {
    const events: EventBus = config.nats ? await connectNatsBus(config.nats, { name: program.name, log }) : createLocalBus(log);
    closers.push(() => events.close());
    const context: ServiceContext = { log, events, clock: SYSTEM_CLOCK };
    const host = hostService(program.name, { version: program.version ?? "0.1.0", address: config.listen, pid: process.pid }, context);

    const ports: Record<string, Port<any>> = {};
    const services = new Map<string, ServiceSide>([[program.name, host.side]]);
    const connect = <D extends ServiceDefinition>(contract: Contract<D>, at: string): GrpcConnection<D> => {
      const connection = connectGrpc(contract, at);
      closers.push(() => connection.close());
      return connection;
    };
    for (const [name, contract] of Object.entries(program.peers) as [string, Contract<any>][]) {
      const at = config[contract.service]!;
      const connection = connect(contract, at);
      ports[name] = connection.port;
      // Connections are made on first use: a service that never asks for a side port never opens it.
      services.set(contract.service, { address: at, kit: connect(KIT, at).port, mediation: connect(MEDIATION, at).port, ready: () => connection.ready() });
    }

    const running = await program.create(config, ports, context, services);
    closers.push(() => running.close());

    const server = createGrpcServer();
    serveGrpc(server, running.contract, host.attach(running));
    serveGrpc(server, MEDIATION, host.side.mediation);
    serveGrpc(server, KIT, host.side.kit);
    const names = [running.contract, MEDIATION, KIT].map(grpcName);
    const health = new HealthImplementation(Object.fromEntries(["", ...names].map((name) => [name, "SERVING" as const])));
    health.addToServer(server as unknown as Parameters<typeof health.addToServer>[0]);
    addReflection(server, [...names, "grpc.health.v1.Health"]);
    const bound = await listen(server, config.listen);
    closers.push(async () => {
      await Promise.race([new Promise<void>((resolve) => server.tryShutdown(() => resolve())), new Promise((resolve) => setTimeout(resolve, DRAIN_MS))]);
      server.forceShutdown();
      const file = socketFile(bound);
      if (file) rmSync(file, { force: true });
    });
    // Closed first: nobody is sent here any more, and streams end with the core's own reason.
    closers.push(() => {
      for (const name of ["", ...names]) health.setStatus(name, "NOT_SERVING");
      return running.close();
    });
    log.info({ address: bound, nats: config.nats || undefined }, "ready");
    process.stdout.write(`ready ${program.name} ${bound}\n`);
    return stop;
  } catch (error) {
    await stop();
    throw error;
  }
}

/** "polyvisor.cpu.v1.CpuService" */
function grpcName({ definition }: Contract<any>): string {
  return (Object.values(definition) as MethodDefinition[])[0]!.path.split("/")[1]!;
}

function stopOnSignals(stop: () => Promise<void>, exitWithStdin: boolean, log: Logger): void {
  let stopping = false;
  const end = (reason: string, code: number) => {
    if (stopping) process.exit(1); // asked twice
    stopping = true;
    log.info({ reason }, "stopping");
    setTimeout(() => {
      log.error(`not stopped within ${SHUTDOWN_MS} ms`);
      process.exit(1);
    }, SHUTDOWN_MS).unref();
    void stop().then(() => process.exit(code));
  };
  process.on("SIGTERM", () => end("SIGTERM", 0));
  process.on("SIGINT", () => end("SIGINT", 0));
  process.on("uncaughtException", (error) => {
    log.fatal({ err: error }, "uncaught exception");
    end("uncaught exception", 1);
  });
  if (exitWithStdin) {
    process.stdin.resume();
    process.stdin.on("end", () => end("standard input closed", 0));
    process.stdin.on("error", () => end("standard input closed", 0));
  }
}
