import { readDescriptors } from "@polyvisor/contracts/descriptors";
import type { MethodDefinition, Server, ServerDuplexStream } from "@grpc/grpc-js";
import type { ReflectionService } from "@grpc/reflection";

const METHOD = "ServerReflectionInfo";

/** What `@grpc/reflection` adds to a server: messages are its own objects, the stream is used with "data", "end", write and end. */
interface Implementation {
  readonly method: MethodDefinition<unknown, unknown>;
  readonly answer: (stream: unknown) => void;
}

/**
 * gRPC server reflection (v1 and v1alpha), so that grpcurl and others can list and call what this process serves. Its library
 * decodes and indexes all descriptors, which takes every service a second and 60 MB: only when somebody asks.
 */
export function addReflection(server: Server, services: readonly string[]): void {
  let loading: Promise<ReadonlyMap<string, Implementation>> | undefined;
  for (const version of ["v1", "v1alpha"]) {
    const path = `/grpc.reflection.${version}.ServerReflection/${METHOD}`;
    const bytes = (message: Buffer): Buffer => message;
    const method = { path, requestStream: true, responseStream: true, requestSerialize: bytes, requestDeserialize: bytes, responseSerialize: bytes, responseDeserialize: bytes };
    server.addService({ [METHOD]: method }, {
      [METHOD]: (call: ServerDuplexStream<Buffer, Buffer>) => {
        loading ??= load(services);
        loading.then((implementations) => answer(implementations.get(path)!, call), (error) => call.emit("error", error));
      },
    });
  }
}

async function load(services: readonly string[]): Promise<ReadonlyMap<string, Implementation>> {
  const [{ loadFileDescriptorSetFromBuffer }, library] = await Promise.all([import("@grpc/proto-loader"), import("@grpc/reflection")]);
  const reflection = new library.ReflectionService(loadFileDescriptorSetFromBuffer(Buffer.from(readDescriptors())), { services: [...services] });
  const implementations = new Map<string, Implementation>();
  const registry: Pick<Server, "addService"> = {
    addService: (definition, implementation) => {
      const method = definition[METHOD] as MethodDefinition<unknown, unknown>;
      implementations.set(method.path, { method, answer: implementation[METHOD] as unknown as Implementation["answer"] });
    },
  };
  reflection.addToServer(registry as Parameters<ReflectionService["addToServer"]>[0]);
  return implementations;
}

function answer({ method, answer }: Implementation, call: ServerDuplexStream<Buffer, Buffer>): void {
  answer({
    on: (event: string, listener: (message?: unknown) => void) => call.on(event, event === "data" ? (bytes: Buffer) => listener(method.requestDeserialize(bytes)) : listener),
    write: (message: unknown) => call.write(method.responseSerialize(message)),
    end: () => call.end(),
  });
}
