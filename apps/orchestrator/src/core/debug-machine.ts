import { asContractError, type Channel } from "@polyvisor/contracts";
import type { DebugRequest, DebugResponse } from "@polyvisor/contracts/cpu";
import type { DebugInput, DebugOutput } from "@polyvisor/contracts/orchestrator";
import type { Machine } from "./machine.ts";
import type { OrchestratorPeers } from "./peers.ts";
import { running } from "./read-cpu.ts";

/** Serves one Debug stream: joins it to the machine's debug stream of the cpu-emulator. The end of either ends both. */
export function serveDebug(channel: Channel<DebugOutput, DebugInput>, find: (name: string) => Machine, peers: OrchestratorPeers): void {
  let harts: Channel<DebugRequest, DebugResponse> | undefined;
  let machine = "";
  channel.onMessage(({ name, packet }) => {
    try {
      if (!harts) {
        machine = find(name).name;
        harts = open(channel, find(name), peers);
      }
      harts.send({ machine, packet });
    } catch (error) {
      channel.close(asContractError(error));
    }
  });
  channel.onClose(() => harts?.close());
}

function open(channel: Channel<DebugOutput, DebugInput>, machine: Machine, peers: OrchestratorPeers): Channel<DebugRequest, DebugResponse> {
  running(machine);
  const harts = peers.cpu.debug();
  harts.onMessage(({ packet }) => channel.send({ packet }));
  harts.onClose((error) => channel.close(error));
  return harts;
}
