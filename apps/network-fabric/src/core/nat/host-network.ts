/** Why the host could not do something, as far as a guest can be told. */
export type HostFailure = "refused" | "host-unreachable" | "network-unreachable" | "denied" | "timeout" | "reset" | "in-use" | "too-large" | "other";

export class HostError extends Error {
  readonly failure: HostFailure;
  constructor(failure: HostFailure, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "HostError";
    this.failure = failure;
  }
}
export interface HostAddress {
  readonly address: string;
  readonly port: number;
}

/** What a connection of the host tells its flow. */
export interface HostStreamEvents {
  /** The peer has accepted; nothing else comes before. */
  connected(): void;
  /** The chunk belongs to the flow. */
  data(chunk: Uint8Array): void;
  /** The peer will send no more. */
  ended(): void;
  /** Some of what was written has left. */
  drained(): void;
  /** The last event: both directions have ended, or it failed. */
  finished(error?: HostError): void;
}
/** A TCP connection of the host. */
export interface HostStream {
  readonly local: string;
  readonly remote: string;
  /** Bytes written that the host's kernel has not taken yet. */
  readonly pending: number;
  /** The chunk must not change afterwards. */
  write(chunk: Uint8Array): void;
  /** No more will be written. */
  end(): void;
  pause(): void;
  resume(): void;
  /** How its packets are to be treated on their way: DSCP (RFC 2474, 3) in its place in the byte, where the host can say so. */
  mark(trafficClass: number): void;
  /** Ends with a reset; no event comes any more. */
  reset(): void;
}
/** Somebody who listens for connections or datagrams of the host. */
export interface HostListener {
  readonly port: number;
  close(): void;
}

/** A UDP socket of the host. `failed`: what ICMP said about a destination. */
export interface HostDatagramEvents {
  received(data: Uint8Array, from: HostAddress): void;
  failed(destination: HostAddress, error: HostError): void;
}
export interface HostDatagrams {
  readonly local: string;
  /** Bytes that the kernel has not taken yet. */
  readonly pending: number;
  send(data: Uint8Array, to: HostAddress): void;
  close(): void;
}

/** What became of an echo request: the answer's data, or an ICMP error (RFC 792) and who sent it. */
export type EchoOutcome = { readonly data: Uint8Array } | { readonly type: number; readonly code: number; readonly from: string };

/** Sends ICMP echo requests of the host where it may. */
export interface HostEcho {
  /** Undefined: nothing came in time. Rejects with a HostError ("denied": the host does not let us). */
  echo(address: string, data: Uint8Array, timeToLive: number): Promise<EchoOutcome | undefined>;
}

/** The host's network as the NAT uses it: everything a user without privileges may do. */
export interface HostNetwork {
  connect(to: HostAddress, events: HostStreamEvents): HostStream;
  /** Rejects with a HostError ("in-use", "denied"). Accepted streams are paused. */
  listen(bind: HostAddress, accept: (stream: HostStream, listen: (events: HostStreamEvents) => void) => void): Promise<HostListener>;
  datagrams(events: HostDatagramEvents, family: 4 | 6): HostDatagrams;
  /** Datagrams to a port of the host; `bind` may be in use. */
  bindDatagrams(bind: HostAddress, received: (data: Uint8Array, from: HostAddress) => void): Promise<HostListener & { send(data: Uint8Array, to: HostAddress): void }>;
  readonly echo?: HostEcho | undefined;
  /** A keyed hash of a connection's addresses (RFC 6528: F). */
  initialSequence(connection: string): number;
}
