import type { FramePort, Line } from "./frame-port.ts";

/** A line that the fabric opened itself, to a peer that does not speak the Frames stream. */
export interface PeerLine extends Line {
  close(): void;
}
/** Opens the line that `Port.peer` names; throws ContractError when the host does not let us. `turn` as in the fabric. */
export type OpenPeer = (port: FramePort, mtu: number, turn: (run: () => void) => void) => PeerLine;
