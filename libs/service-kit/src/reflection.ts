import { readDescriptors } from "@polyvisor/contracts/descriptors";
import { loadFileDescriptorSetFromBuffer } from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";

/** gRPC server reflection (v1 and v1alpha), so that grpcurl and others can list and call what this process serves. */
export function addReflection(server: Parameters<ReflectionService["addToServer"]>[0], services: readonly string[]): void {
  const packages = loadFileDescriptorSetFromBuffer(Buffer.from(readDescriptors()));
  new ReflectionService(packages, { services: [...services] }).addToServer(server);
}
