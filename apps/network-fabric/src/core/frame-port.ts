import type { Frame, Impairment, Port } from "@polyvisor/contracts/network";
import type { Clock } from "@polyvisor/service-kit";
import { completeFrame, ETHERNET_HEADER_BYTES, GSO, tcpLayout, type MacAddress } from "@polyvisor/wire";
import { Impairer } from "./impairer.ts";
import type { SwitchPort } from "./l2-switch.ts";
import { TokenBucket } from "./token-bucket.ts";
import { vlanRule, type VlanRule } from "./vlan.ts";

/** Frames and bytes in one batch at most. */
const BATCH_FRAMES = 64;
const BATCH_BYTES = 256 * 1024;
/** Bytes that wait for a port, beside the configured number of frames. */
const QUEUE_BYTES = 4 * 1024 * 1024;
/** A rate limit lets pass at once what it lets pass in so long, and at least one large frame. */
const RATE_BURST_MS = 20;
const RATE_BURST_BYTES = 64 * 1024;

/** A frame that is to be segmented: 64 KiB of IP (virtio 1.2, 5.1.6.3.1) and the link's headers. */
const MAX_GSO_FRAME_BYTES = 65_535 + ETHERNET_HEADER_BYTES + 4;

/** Counters of a port, as the fabric sees it: rx = from the guest, tx = to the guest. */
export function newPortCounters() {
  return {
    rx_frames: 0,
    rx_bytes: 0,
    tx_frames: 0,
    tx_bytes: 0,
    rx_dropped_credit: 0, // sent beyond the credit
    rx_dropped_malformed: 0, // too short, too long, impossible offload
    rx_mediated: 0, // taken away by a rule on their way here
    rx_dropped_link: 0, // the cable is out
    rx_dropped_spoof: 0, // another's address
    tx_dropped_queue: 0, // the guest gives no credit and its queue is full
    tx_dropped_link: 0, // nobody has the port's stream open, or the cable is out
  };
}

/** Who is at the other end of a port: a NIC's stream, a socket, a TAP interface. */
export interface Line {
  /** Frames that it takes now. */
  readonly ready: number;
  /** It completes checksums and segments itself (NET-6). */
  readonly takesOffload: boolean;
  /** `waiting`: of the frames that came, so many still wait in the port. */
  send(frames: Frame[], waiting: number): void;
  /** The port has flushed. */
  settle(waiting: number): void;
  linkChanged(up: boolean): void;
}

export interface PortSurroundings {
  readonly clock: Clock;
  /** Runs what delivers frames outside a line's own message, so that they are sent afterwards. */
  turn(run: () => void): void;
  /** The port has something to send at the turn's end. */
  dirty(port: FramePort): void;
  /** A frame from the guest that may pass. */
  receive(port: FramePort, frame: Frame): void;
}
/** Sees each frame at the port as it passes: the packet captures. */
export type FrameObserver = (direction: "from-guest" | "to-guest", frame: Frame) => void;

/**
 * One port: what the network does with frames on their way to and from one guest, whoever carries them. Each port has
 * its own queue, so a guest that does not take its frames loses its own and nobody else's.
 */
export class FramePort implements SwitchPort {
  readonly info: Port;
  readonly mac: MacAddress;
  readonly vlan: VlanRule;
  readonly counters = newPortCounters();
  readonly observers = new Set<FrameObserver>();
  /** True: the frame may not come from here. Set by the network. */
  isSpoofed: ((frame: Frame) => boolean) | undefined;
  readonly #around: PortSurroundings;
  /** The largest frame that the network carries. */
  #maxFrameBytes: number;
  readonly #queueFrames: number;
  #queue: Frame[] = [];
  #queuedBytes = 0;
  #line: Line | undefined;
  readonly #rate: { in: TokenBucket; out: TokenBucket } | undefined;
  /** From the guest, waiting for the rate limit: bounded by the line's credit. */
  #throttled: Frame[] = [];
  #cancelTimers = new Map<"in" | "out", () => void>();
  #fromGuest: Impairer | undefined;
  #toGuest: Impairer | undefined;

  constructor(info: Port, mac: MacAddress, limits: { mtu: number; queueFrames: number }, around: PortSurroundings) {
    this.info = info;
    this.mac = mac;
    this.vlan = vlanRule(info.vlan, info.trunk);
    this.#maxFrameBytes = maxFrameBytes(limits.mtu);
    this.#queueFrames = limits.queueFrames;
    this.#around = around;
    const perSecond = Number(info.rateLimit);
    const bucket = () => new TokenBucket(perSecond, Math.max(RATE_BURST_BYTES, (perSecond * RATE_BURST_MS) / 1000), around.clock.monotonic());
    this.#rate = perSecond > 0 ? { in: bucket(), out: bucket() } : undefined;
  }

  /** Who carries frames from now on; what was queued for the one before is forgotten. */
  connect(line: Line): void {
    this.#line = line;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#throttled = [];
  }
  disconnect(line: Line): void {
    if (this.#line === line) this.#line = undefined;
  }
  get connected(): boolean {
    return this.#line !== undefined;
  }
  /** The cable is in another network now. */
  moved(network: string, mtu: number): void {
    this.info.network = network;
    this.#maxFrameBytes = maxFrameBytes(mtu);
  }
  setLink(up: boolean): void {
    if (this.info.linkUp === up) return;
    this.info.linkUp = up;
    if (!up) {
      this.#queue = [];
      this.#queuedBytes = 0;
      this.#throttled = [];
    }
    this.#line?.linkChanged(up);
  }
  /** Undefined: a good line again. */
  impair(spec: Impairment | undefined): void {
    this.#fromGuest?.close();
    this.#toGuest?.close();
    const { clock, turn } = this.#around;
    const make = (direction: string, out: (frame: Frame) => void): Impairer | undefined =>
      spec && (spec.direction === "" || spec.direction === direction) ? new Impairer(spec, clock, (frame) => turn(() => out(frame))) : undefined;
    this.#fromGuest = make("from-guest", (frame) => this.#pass(frame));
    this.#toGuest = make("to-guest", (frame) => this.#enqueue(frame));
  }
  get impairmentCounters(): Record<string, number> {
    const sum: Record<string, number> = {};
    for (const { counters } of [this.#fromGuest, this.#toGuest].filter((impairer) => impairer !== undefined)) {
      for (const [name, value] of Object.entries(counters)) sum[name] = (sum[name] ?? 0) + value;
    }
    return sum;
  }
  close(): void {
    this.impair(undefined);
    for (const cancel of this.#cancelTimers.values()) cancel();
    this.#line = undefined;
  }

  /** A frame from the guest. */
  ingress(frame: Frame): void {
    const { data, offload } = frame;
    if (data.length === 0) return void this.counters.rx_mediated++;
    const limit = offload && offload.gsoType !== GSO.NONE ? MAX_GSO_FRAME_BYTES : this.#maxFrameBytes;
    if (data.length < ETHERNET_HEADER_BYTES || data.length > limit || !possible(frame)) return void this.counters.rx_dropped_malformed++;
    if (!this.info.linkUp) return void this.counters.rx_dropped_link++;
    this.counters.rx_frames++;
    this.counters.rx_bytes += data.length;
    if (!this.#rate) return this.#impaired(frame);
    this.#throttled.push(frame);
    this.#throttle();
  }
  /** Queues a frame for the guest; `flush` sends it. */
  deliver(frame: Frame): void {
    if (!this.#line || !this.info.linkUp) return void this.counters.tx_dropped_link++;
    if (!frame.offload || (this.#line.takesOffload && !this.#toGuest)) return this.#out(frame);
    for (const data of completeFrame(frame.data, frame.offload) ?? []) this.#out({ data, offload: undefined });
  }
  /** Sends what the line and the rate limit allow. */
  flush(): void {
    let line = this.#line;
    while (line && line.ready > 0 && this.#queue.length > 0) {
      const now = this.#rate ? this.#around.clock.monotonic() : 0;
      let count = 0;
      let bytes = 0;
      const most = Math.min(BATCH_FRAMES, line.ready, this.#queue.length);
      while (count < most && bytes < BATCH_BYTES) {
        const { length } = this.#queue[count]!.data;
        if (this.#rate && !this.#rate.out.take(length, now)) break;
        bytes += length;
        count++;
      }
      if (count === 0) {
        this.#later("out", this.#rate!.out, () => this.#around.dirty(this));
        break;
      }
      const frames = this.#queue.splice(0, count);
      this.#queuedBytes -= bytes;
      this.counters.tx_frames += count;
      this.counters.tx_bytes += bytes;
      line.send(frames, this.#throttled.length);
      line = this.#line; // sending may end it
    }
    line?.settle(this.#throttled.length);
  }

  /** A bad line damages what would be on it: whole frames, not what is still to be cut. */
  #impaired(frame: Frame): void {
    if (!this.#fromGuest) return this.#pass(frame);
    for (const data of completeFrame(frame.data, frame.offload) ?? []) this.#fromGuest.pass({ data, offload: undefined });
  }
  #pass(frame: Frame): void {
    if (this.isSpoofed?.(frame)) return void this.counters.rx_dropped_spoof++;
    for (const observe of this.observers) observe("from-guest", frame);
    this.#around.receive(this, frame);
  }
  #out(frame: Frame): void {
    if (this.#toGuest) this.#toGuest.pass(frame);
    else this.#enqueue(frame);
  }
  #enqueue(frame: Frame): void {
    if (!this.#line || !this.info.linkUp) this.counters.tx_dropped_link++;
    else if (this.#queue.length >= this.#queueFrames || this.#queuedBytes + frame.data.length > QUEUE_BYTES) {
      this.counters.tx_dropped_queue++;
    } else {
      for (const observe of this.observers) observe("to-guest", frame);
      this.#queue.push(frame);
      this.#queuedBytes += frame.data.length;
      this.#around.dirty(this);
    }
  }
  #throttle(): void {
    const bucket = this.#rate!.in;
    const now = this.#around.clock.monotonic();
    while (this.#throttled.length > 0 && bucket.take(this.#throttled[0]!.data.length, now)) {
      this.#impaired(this.#throttled.shift()!);
    }
    this.#around.dirty(this);
    if (this.#throttled.length > 0) this.#later("in", bucket, () => this.#throttle());
  }
  #later(key: "in" | "out", bucket: TokenBucket, run: () => void): void {
    if (this.#cancelTimers.has(key)) return;
    const cancel = this.#around.clock.after(bucket.waitMs, () => {
      this.#cancelTimers.delete(key);
      this.#around.turn(run);
    });
    this.#cancelTimers.set(key, cancel);
  }
}

function maxFrameBytes(mtu: number): number {
  return mtu + ETHERNET_HEADER_BYTES + 4; // and a VLAN tag
}

/** Whether the offload that a frame asks for can be carried out. */
function possible({ data, offload }: Frame): boolean {
  if (!offload) return true;
  const { needsChecksum, checksumStart, checksumOffset, gsoType, gsoSize } = offload;
  if (needsChecksum && checksumStart + checksumOffset + 2 > data.length) return false;
  if (gsoType === GSO.NONE) return true;
  const type = gsoType & ~GSO.ECN;
  return gsoSize > 0 && tcpLayout(data)?.version === (type === GSO.TCPV4 ? 4 : type === GSO.TCPV6 ? 6 : 0);
}
