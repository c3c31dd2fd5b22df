import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { ContractError } from "@polyvisor/contracts";
import type { Frame } from "@polyvisor/contracts/network";
import type { Logger } from "pino";
import type { FramePort } from "../core/frame-port.ts";
import type { HostInterface, HostInterfaces } from "../core/host-interfaces.ts";
import type { OpenPeer, PeerLine } from "../core/peer-lines.ts";
import { TAP_OFFLOADS } from "./linux-interfaces.ts";
import { QemuDgramLine } from "./qemu-dgram-line.ts";
import { QemuStreamLine } from "./qemu-stream-line.ts";

/** sun_path of Linux with its NUL (unix(7)). */
const MAX_SOCKET_PATH = 107;

/** Opens what `Port.peer` names. */
export function peerOpener(host: HostInterfaces, log: Logger): OpenPeer {
  return (port, mtu, turn) => {
    const { id, peer } = port.info;
    const [kind, rest] = [peer.slice(0, peer.indexOf(":")), peer.slice(peer.indexOf(":") + 1)];
    switch (kind) {
      case "qemu-stream":
        if (Buffer.byteLength(rest) > MAX_SOCKET_PATH) throw new ContractError("invalid", `createPort ${id}: ${rest} is too long for a socket (${MAX_SOCKET_PATH} bytes)`);
        if (!existsSync(dirname(rest))) throw new ContractError("not-found", `createPort ${id}: there is no directory ${dirname(rest)} for the socket`);
        return new QemuStreamLine(port, rest, turn, log);
      case "qemu-dgram": {
        const [local, remote] = rest.split(":").map(Number) as [number, number];
        if (!(local > 0 && local < 65_536 && remote > 0 && remote < 65_536)) throw new ContractError("invalid", `createPort ${id}: UDP ports ${rest}; give 1 to 65535`);
        return new QemuDgramLine(port, { local, remote }, turn, log);
      }
      case "tap":
        return new TapLine(port, { name: rest, mtu }, host, turn);
      default:
        throw new ContractError("invalid", `createPort ${id}: peer ${peer}`);
    }
  };
}

/** A port whose guest is whatever has the other side of a TAP interface: the host, or a namespace that it is moved to. */
class TapLine implements PeerLine {
  /** The interface has a queue of its own, and drops what does not fit. */
  readonly ready = 64;
  readonly takesOffload = true;
  readonly #port: FramePort;
  readonly #interface: HostInterface;

  constructor(port: FramePort, { name, mtu }: { name: string; mtu: number }, host: HostInterfaces, turn: (run: () => void) => void) {
    this.#port = port;
    this.#interface = host.openTap({ name, mtu, offload: TAP_OFFLOADS.segmentation }, (frames: readonly Frame[]) => turn(() => frames.forEach((frame) => port.ingress(frame))));
    port.connect(this);
  }
  send(frames: Frame[]): void {
    for (const frame of frames) if (!this.#interface.send(frame)) this.#port.counters.tx_dropped_queue++;
  }
  settle(): void {}
  linkChanged(): void {}
  close(): void {
    this.#port.disconnect(this);
    this.#interface.close();
  }
}
