import { asContractError, ContractError, type Channel } from "@polyvisor/contracts";
import type { DebugRequest, DebugResponse } from "@polyvisor/contracts/cpu";
import type { GdbSession } from "./gdb-session.ts";

/** What a Debug stream needs of a machine. */
export interface Debuggable {
  /** Throws `conflict` while another debugger is there. */
  openDebugger(send: (packet: Uint8Array) => void): GdbSession;
}

/** Longest packet that is taken: twice what we tell the debugger, for its escapes. */
const MOST_PACKET_BYTES = 0x8000;

/** Serves one Debug stream: the first message names the machine and attaches. The end of the stream detaches. */
export function serveDebug(channel: Channel<DebugResponse, DebugRequest>, find: (machine: string) => Debuggable): void {
  let session: GdbSession | undefined;
  let machine = "";
  channel.onMessage((request) => {
    try {
      if (!session) {
        machine = request.machine;
        session = find(machine).openDebugger((packet) => channel.send({ machine, packet }));
      } else if (request.machine !== machine) throw new ContractError("invalid", `debug: a stream is for one machine, ${machine}; got ${request.machine}`);
      if (request.packet.length > MOST_PACKET_BYTES) throw new ContractError("invalid", `debug: a packet of ${request.packet.length} bytes; at most ${MOST_PACKET_BYTES}`);
      session.receive(request.packet);
    } catch (error) {
      channel.close(asContractError(error));
    }
  });
  channel.onClose(() => void session?.close());
}
