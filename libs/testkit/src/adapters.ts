import { mediated, type Contract, type Implementation, type Port, type ServiceDefinition } from "@polyvisor/contracts";
import { bindGrpc, connectGrpc, createGrpcServer, serveGrpc } from "@polyvisor/contracts/grpc";
import type { MediationChain } from "@polyvisor/mediation";
import { temporaryDirectory } from "./temporary-directory.ts";

export interface Served<D extends ServiceDefinition> {
  readonly contract: Contract<D>;
  readonly implementation: Implementation<D>;
}
export interface Connected<D extends ServiceDefinition> {
  readonly port: Port<D>;
  close(): Promise<void>;
}
export interface Adapter {
  readonly name: string;
  connect<D extends ServiceDefinition>(served: Served<D>, chain?: MediationChain): Promise<Connected<D>>;
}

/** The two ways a service is reached: what holds through one must hold through the other. */
export const ADAPTERS: readonly Adapter[] = [
  {
    name: "local adapter",
    connect: async ({ contract, implementation }, chain) => ({ port: mediated(contract, implementation, chain), close: async () => {} }),
  },
  {
    name: "gRPC adapter over a Unix socket",
    async connect({ contract, implementation }, chain) {
      const directory = temporaryDirectory("pv-adapter-");
      const server = createGrpcServer();
      serveGrpc(server, contract, mediated(contract, implementation, chain));
      const peer = connectGrpc(contract, await bindGrpc(server, `unix:${directory.path}/s.sock`));
      await peer.ready();
      return {
        port: peer.port,
        async close() {
          peer.close();
          server.forceShutdown();
          directory[Symbol.dispose]();
        },
      };
    },
  },
];
