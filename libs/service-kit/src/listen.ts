import { lstatSync, mkdirSync, rmSync } from "node:fs";
import { createConnection } from "node:net";
import { dirname } from "node:path";
import { ContractError } from "@polyvisor/contracts";
import { bindGrpc } from "@polyvisor/contracts/grpc";

type GrpcServer = Parameters<typeof bindGrpc>[0];

/** Binds, after removing the socket file of a process that is gone. Refuses when somebody answers there. */
export async function listen(server: GrpcServer, address: string): Promise<string> {
  const file = socketFile(address);
  if (file !== undefined) {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    await removeStaleSocket(file);
  }
  return bindGrpc(server, address);
}

export function socketFile(address: string): string | undefined {
  return address.startsWith("unix:") ? address.slice("unix:".length).replace(/^\/\/\//, "/") : undefined;
}

async function removeStaleSocket(file: string): Promise<void> {
  const stat = lstatSync(file, { throwIfNoEntry: false });
  if (!stat) return;
  if (!stat.isSocket()) throw new ContractError("already-exists", `cannot listen on ${file}: it exists and is no socket`);
  if (await answers(file)) throw new ContractError("already-exists", `cannot listen on ${file}: another process does; stop it first`);
  rmSync(file, { force: true });
}

function answers(file: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection(file);
    const settle = (live: boolean) => {
      probe.destroy();
      resolve(live);
    };
    probe.once("connect", () => settle(true));
    probe.once("error", () => settle(false));
  });
}
