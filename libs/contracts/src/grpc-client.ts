import {
  Client,
  credentials as grpcCredentials,
  Metadata,
  status,
  type CallOptions as GrpcCallOptions,
  type ChannelCredentials,
  type ClientReadableStream,
  type ServiceError,
  type StatusObject,
} from "@grpc/grpc-js";
import type { Channel } from "./channel.ts";
import type { Contract } from "./contract.ts";
import { asContractError, ContractError } from "./errors.ts";
import { clientOptions } from "./grpc-options.ts";
import { contractErrorOf } from "./grpc-status.ts";
import { fromPlainBytes } from "./plain-bytes.ts";
import { outgoingTraceparent, TRACEPARENT_KEY } from "./trace-context.ts";
import { DEFAULT_TIMEOUT_MS, type CallOptions, type MethodDefinition, type Port, type ServiceDefinition } from "./port.ts";

export interface GrpcConnection<D extends ServiceDefinition> {
  readonly port: Port<D>;
  /** Resolves when connected; "unavailable" after `timeoutMs`. Calls need not wait: they connect by themselves. */
  ready(timeoutMs?: number): Promise<void>;
  /** Ends open calls with "cancelled" and disconnects. */
  close(): void;
}

export interface ConnectOptions {
  /** Default: plain text, for Unix sockets and trusted networks. */
  credentials?: ChannelCredentials;
}

/**
 * The client half of the gRPC adapter: the same `Port` type over a connection to `unix:/path` or `host:port`. Connects
 * on first use and again after a loss; calls while the peer is away fail at once with "unavailable".
 */
export function connectGrpc<D extends ServiceDefinition>(
  contract: Contract<D>,
  address: string,
  options: ConnectOptions = {},
): GrpcConnection<D> {
  const client = new Client(address, options.credentials ?? grpcCredentials.createInsecure(), clientOptions(address));
  const port: Record<string, unknown> = {};
  for (const [name, method] of Object.entries(contract.definition) as [string, MethodDefinition][]) {
    const what = `${contract.service}.${name} at ${address}`;
    const { path, requestSerialize } = method;
    const responseDeserialize = fromPlainBytes(method.responseDeserialize);
    if (method.requestStream) {
      port[name] = (call?: CallOptions) => {
        const stream = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, traceMetadata(), grpcOptions(call));
        return new ClientChannel(what, stream, call?.signal);
      };
    } else if (method.responseStream) {
      port[name] = (request: unknown, call?: CallOptions) => {
        const stream = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request, traceMetadata(), grpcOptions(call));
        return new ClientChannel(what, stream, call?.signal);
      };
    } else {
      port[name] = (request: unknown, call?: CallOptions) =>
        new Promise((resolve, reject) => {
          const signal = call?.signal;
          if (signal?.aborted) return reject(new ContractError("cancelled", `${what}: cancelled by its caller`));
          const abort = () => running.cancel();
          const running = client.makeUnaryRequest(
            path,
            requestSerialize,
            responseDeserialize,
            request,
            traceMetadata(),
            grpcOptions(call, DEFAULT_TIMEOUT_MS),
            (error: ServiceError | null, response?: unknown) => {
              signal?.removeEventListener("abort", abort);
              if (error) reject(contractErrorOf(what, error));
              else resolve(response);
            },
          );
          signal?.addEventListener("abort", abort);
        });
    }
  }
  return {
    port: port as Port<D>,
    ready: (timeoutMs = 5_000) =>
      new Promise((resolve, reject) => {
        client.waitForReady(Date.now() + timeoutMs, (error) => {
          if (!error) return resolve();
          reject(
            new ContractError("unavailable", `${contract.service} does not answer at ${address} within ${timeoutMs} ms; is it running there?`, {
              cause: error,
            }),
          );
        });
      }),
    close: () => client.close(),
  };
}

/** Calls and the opening of streams carry the trace; messages on a stream do not. */
function traceMetadata(): Metadata {
  const metadata = new Metadata();
  metadata.set(TRACEPARENT_KEY, outgoingTraceparent());
  return metadata;
}

function grpcOptions(call: CallOptions | undefined, defaultMs = Infinity): GrpcCallOptions {
  const timeoutMs = call?.timeoutMs ?? defaultMs;
  return Number.isFinite(timeoutMs) ? { deadline: Date.now() + timeoutMs } : {};
}

/** A server stream has no writing half. */
type ClientStream = ClientReadableStream<any> & { write?(message: unknown): boolean; end?(): unknown };

class ClientChannel implements Channel<any, any> {
  closed = false;
  readonly #what: string;
  readonly #stream: ClientStream;
  #error: ContractError | undefined;
  #status: StatusObject | undefined;
  #readEnded = false;
  #listener: ((message: unknown) => void) | undefined;
  #early: unknown[] = [];
  #closeListeners: ((error?: ContractError) => void)[] = [];

  constructor(what: string, stream: ClientStream, signal: AbortSignal | undefined) {
    this.#what = what;
    this.#stream = stream;
    stream.on("data", (message: unknown) => this.#receive(message));
    // The status may be known before the last messages have been read: both must have come.
    stream.on("status", (status: StatusObject) => {
      this.#status = status;
      if (this.#readEnded || this.closed) this.#finish();
    });
    stream.on("end", () => {
      this.#readEnded = true;
      if (this.#status) this.#finish();
    });
    stream.on("error", () => {}); // "status" tells the same
    if (signal?.aborted) this.#abort();
    else if (signal) {
      const abort = () => this.#abort();
      signal.addEventListener("abort", abort);
      this.onClose(() => signal.removeEventListener("abort", abort));
    }
  }

  #abort(): void {
    this.close(new ContractError("cancelled", `${this.#what}: cancelled by its caller`));
  }

  #receive(message: unknown): void {
    if (this.closed) return;
    if (!this.#listener) return void this.#early.push(message);
    this.#deliver(message);
  }

  #deliver(message: unknown): void {
    try {
      this.#listener!(message);
    } catch (error) {
      this.close(asContractError(error));
    }
  }

  #finish(): void {
    const ended = this.#status!;
    this.#settle(ended.code === status.OK ? undefined : contractErrorOf(this.#what, ended));
  }

  #settle(error: ContractError | undefined): void {
    if (this.closed) return;
    this.closed = true;
    this.#error = error;
    for (const listener of this.#closeListeners.splice(0)) listener(error);
  }

  send(message: unknown): boolean {
    if (this.closed || this.#status) return false;
    return this.#stream.write!(message);
  }

  onMessage(listener: (message: unknown) => void): void {
    this.#listener = listener;
    // Also when the peer has ended the stream meanwhile: what it sent before has come.
    for (let message: unknown; this.#early.length > 0; this.#deliver(message)) message = this.#early.shift();
  }

  onDrain(listener: () => void): void {
    this.#stream.on("drain", listener);
  }

  slow(isSlow: boolean): void {
    if (isSlow) this.#stream.pause();
    else this.#stream.resume();
  }

  /** Without an error what was sent still arrives; with one the call is cancelled and the peer sees "cancelled". */
  close(error?: ContractError): void {
    this.#early = [];
    if (this.closed) return;
    this.#stream.resume();
    if (error || !this.#stream.end) this.#stream.cancel();
    else this.#stream.end();
    this.#settle(error);
  }

  onClose(listener: (error?: ContractError) => void): void {
    if (this.closed) listener(this.#error);
    else this.#closeListeners.push(listener);
  }
}
