import type { Channel, Sink } from "./channel.ts";

/** One method of a generated grpc-js service definition (ts-proto `outputServices=grpc-js`). */
export interface MethodDefinition<Req = any, Res = any> {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestSerialize: (value: Req) => Buffer;
  readonly requestDeserialize: (value: Buffer) => Req;
  readonly responseSerialize: (value: Res) => Buffer;
  readonly responseDeserialize: (value: Buffer) => Res;
}
export type ServiceDefinition = { readonly [method: string]: MethodDefinition };

type Req<M> = M extends { requestDeserialize: (value: Buffer) => infer R } ? R : never;
type Res<M> = M extends { responseDeserialize: (value: Buffer) => infer R } ? R : never;

export interface CallOptions {
  /** Milliseconds until the call fails with "timeout". Default 10,000 on unary calls; streams have none. Infinity: none. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

export const DEFAULT_TIMEOUT_MS = 10_000;

/**
 * What a caller of a service holds; a local and a gRPC adapter implement it (`localPort`, `connectGrpc`).
 * unary → promise · server stream → channel to read · bidi (and client stream) → channel.
 */
export type Port<D extends ServiceDefinition> = {
  readonly [M in keyof D]: D[M] extends { requestStream: false; responseStream: false }
    ? (request: Req<D[M]>, options?: CallOptions) => Promise<Res<D[M]>>
    : D[M] extends { requestStream: false; responseStream: true }
      ? (request: Req<D[M]>, options?: CallOptions) => Channel<never, Res<D[M]>>
      : (options?: CallOptions) => Channel<Req<D[M]>, Res<D[M]>>;
};

/**
 * What a service's core implements. A method that is left out answers "unimplemented" and is listed by
 * KitService.Describe.
 */
export type Implementation<D extends ServiceDefinition> = {
  readonly [M in keyof D]?: D[M] extends { requestStream: false; responseStream: false }
    ? (request: Req<D[M]>) => Promise<Res<D[M]>> | Res<D[M]>
    : D[M] extends { requestStream: false; responseStream: true }
      ? (request: Req<D[M]>, out: Sink<Res<D[M]>>) => void
      : (channel: Channel<Res<D[M]>, Req<D[M]>>) => void;
};
