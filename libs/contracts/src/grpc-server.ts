import {
  Server,
  ServerCredentials,
  type Metadata,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { stayAwake } from "./awake-loop.ts";
import type { Channel } from "./channel.ts";
import type { Contract } from "./contract.ts";
import { asContractError, ContractError } from "./errors.ts";
import { SERVER_OPTIONS } from "./grpc-options.ts";
import { statusOf } from "./grpc-status.ts";
import { fromPlainBytes, givingBytesBack } from "./plain-bytes.ts";
import { inTrace, TRACEPARENT_KEY } from "./trace-context.ts";
import type { CallOptions, MethodDefinition, Port, ServiceDefinition } from "./port.ts";

/** A grpc-js server with the limits that every Polyvisor process has. */
export function createGrpcServer(): Server {
  return new Server(SERVER_OPTIONS);
}

/**
 * Listens on `unix:/path` or `host:port` (port 0: any) and answers the address clients use. The socket file must not
 * exist; see service-kit's `listen` for stale ones.
 */
export function bindGrpc(server: Server, address: string, credentials: ServerCredentials = ServerCredentials.createInsecure()): Promise<string> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => {
      if (error) {
        reject(new ContractError("unavailable", `cannot listen on ${address}: ${error.message}`, { cause: error }));
      } else resolve(address.startsWith("unix:") ? address : address.replace(/:\d+$/, `:${port}`));
    });
  });
}

/**
 * The server half of the gRPC adapter: registers a port as handlers, generically from its definition. `port` is what
 * `mediated` answered, so that remote calls pass the same chain as local ones.
 */
export function serveGrpc<D extends ServiceDefinition>(server: Server, contract: Contract<D>, port: Port<D>): void {
  const definition: Record<string, MethodDefinition> = {};
  const handlers: Record<string, unknown> = {};
  for (const [name, method] of Object.entries(contract.definition) as [string, MethodDefinition][]) {
    const callPort = (port as Record<string, Function>)[name]!;
    const target = (call: { metadata: Metadata }, ...args: unknown[]) => inTrace(call.metadata.get(TRACEPARENT_KEY)[0], () => callPort(...args));
    // A client stream is a channel too; on the wire it is a bidi stream with one answer.
    definition[name] = { ...method, requestDeserialize: fromPlainBytes(method.requestDeserialize), responseSerialize: givingBytesBack(method.responseSerialize), responseStream: method.requestStream || method.responseStream };
    if (method.requestStream) {
      handlers[name] = (call: ServerDuplexStream<any, any>) => {
        const channel: Channel<unknown, unknown> = target(call, callOptions(call));
        joinChannel(call, channel, contract.methods[name]?.urgent);
        call.on("data", (message) => {
          if (!channel.send(message)) call.pause();
        });
        channel.onDrain(() => call.resume());
        call.on("end", () => channel.close());
      };
    } else if (method.responseStream) {
      handlers[name] = (call: ServerWritableStream<any, any>) => joinChannel(call, target(call, call.request, callOptions(call)));
    } else {
      handlers[name] = (call: ServerUnaryCall<any, any>, answer: sendUnaryData<any>) => {
        const abort = new AbortController();
        call.on("cancelled", () => abort.abort());
        (target(call, call.request, { ...callOptions(call), signal: abort.signal }) as Promise<unknown>).then(
          (response) => answer(null, response),
          (error) => answer(statusOf(asContractError(error))),
        );
      };
    }
  }
  server.addService(definition as any, handlers as UntypedServiceImplementation);
}

/** The caller's deadline rules; the server adds none of its own. */
function callOptions(call: { getDeadline(): Date | number; metadata: Metadata }): CallOptions {
  const deadline = call.getDeadline();
  const at = typeof deadline === "number" ? deadline : deadline.getTime();
  return { timeoutMs: Number.isFinite(at) ? Math.max(0, at - Date.now()) : Infinity };
}

/** Messages and the end, from the channel to the call; cancellation, from the call to the channel. */
function joinChannel(call: ServerDuplexStream<any, any> | ServerWritableStream<any, any>, channel: Channel<unknown, unknown>, urgent = false): void {
  let ended = false;
  channel.onMessage((message) => {
    if (urgent) stayAwake();
    if (!ended && !call.write(message)) channel.slow(true);
  });
  call.on("drain", () => channel.slow(false));
  call.on("cancelled", () => {
    ended = true;
    channel.close(new ContractError("cancelled", `${call.getPath()}: cancelled by its caller, or the caller is gone`));
  });
  call.on("error", (error) => channel.close(asContractError(error)));
  channel.onClose((error) => {
    if (ended) return;
    ended = true;
    // grpc-js: an "error" event becomes the status, sent after what was written before it.
    if (error) call.emit("error", statusOf(error));
    else call.end();
  });
}
