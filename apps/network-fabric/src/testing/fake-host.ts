import {
  HostError,
  type EchoOutcome,
  type HostAddress,
  type HostDatagramEvents,
  type HostFailure,
  type HostNetwork,
  type HostStream,
  type HostStreamEvents,
} from "../core/nat/host-network.ts";

/** One connection of the fake host, in the test's hands: `events` is what the host would say. */
export class FakeStream implements HostStream {
  readonly to: HostAddress;
  readonly events: HostStreamEvents;
  readonly local = "192.0.2.1:50000";
  readonly written: Uint8Array[] = [];
  /** What has been written and not been taken; a test that reads calls `take`. */
  pending = 0;
  /** Takes everything at once. */
  greedy = true;
  ended = false;
  paused = false;
  trafficClass = 0;
  resets = 0;

  constructor(to: HostAddress, events: HostStreamEvents) {
    this.to = to;
    this.events = events;
  }
  get remote(): string {
    return `${this.to.address}:${this.to.port}`;
  }
  get bytes(): Uint8Array {
    return Buffer.concat(this.written);
  }
  write(chunk: Uint8Array): void {
    this.written.push(chunk.slice());
    if (!this.greedy) this.pending += chunk.length;
  }
  take(count: number): void {
    this.pending -= count;
    this.events.drained();
  }
  end(): void {
    this.ended = true;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  mark(trafficClass: number): void {
    this.trafficClass = trafficClass;
  }
  reset(): void {
    this.resets++;
  }
  fail(failure: HostFailure): void {
    this.events.finished(new HostError(failure, failure));
  }
}

/** A host without a network: keeps what the NAT asks of it. */
export class FakeHost implements HostNetwork {
  readonly streams: FakeStream[] = [];
  readonly sockets: { events: HostDatagramEvents; sent: { data: Uint8Array; to: HostAddress }[]; closed: boolean }[] = [];
  readonly listeners = new Map<string, (stream: HostStream, listen: (events: HostStreamEvents) => void) => void>();
  readonly bound = new Map<string, { received: (data: Uint8Array, from: HostAddress) => void; sent: { data: Uint8Array; to: HostAddress }[] }>();

  /** Echo requests that were sent; set `answer` before. */
  readonly echoes: { address: string; data: Uint8Array; timeToLive: number }[] = [];
  answer: EchoOutcome | HostError | undefined = new HostError("denied", "denied");
  readonly echo = {
    echo: async (address: string, data: Uint8Array, timeToLive: number) => {
      this.echoes.push({ address, data, timeToLive });
      if (this.answer instanceof HostError) throw this.answer;
      return this.answer;
    },
  };

  get stream(): FakeStream {
    return this.streams.at(-1)!;
  }
  get socket() {
    return this.sockets.at(-1)!;
  }
  connect(to: HostAddress, events: HostStreamEvents): HostStream {
    const stream = new FakeStream(to, events);
    this.streams.push(stream);
    return stream;
  }
  async listen(bind: HostAddress, accept: (stream: HostStream, listen: (events: HostStreamEvents) => void) => void) {
    const key = `tcp ${bind.address}:${bind.port}`;
    if (this.listeners.has(key)) throw new HostError("in-use", "address already in use");
    this.listeners.set(key, accept);
    return { port: bind.port || 40_000 + this.listeners.size, close: () => void this.listeners.delete(key) };
  }
  datagrams(events: HostDatagramEvents) {
    const socket = { events, sent: [] as { data: Uint8Array; to: HostAddress }[], closed: false };
    this.sockets.push(socket);
    return {
      local: `0.0.0.0:${50_000 + this.sockets.length}`,
      pending: 0,
      send: (data: Uint8Array, to: HostAddress) => void socket.sent.push({ data: data.slice(), to }),
      close: () => void (socket.closed = true),
    };
  }
  async bindDatagrams(bind: HostAddress, received: (data: Uint8Array, from: HostAddress) => void) {
    const key = `udp ${bind.address}:${bind.port}`;
    if (this.bound.has(key)) throw new HostError("in-use", "address already in use");
    const socket = { received, sent: [] as { data: Uint8Array; to: HostAddress }[] };
    this.bound.set(key, socket);
    return {
      port: bind.port || 40_000,
      send: (data: Uint8Array, to: HostAddress) => void socket.sent.push({ data, to }),
      close: () => void this.bound.delete(key),
    };
  }
  initialSequence(): number {
    return 0xffff_f000; // close to the end of the sequence space, so that it wraps
  }
}
