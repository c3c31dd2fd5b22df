import { nodeOciClient } from "@polyvisor/oci-client/node";
import type { OciClient } from "@polyvisor/oci-client";
import { mediated } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import { temporaryDirectory, testContext } from "@polyvisor/testkit";
import { createService, type ImageRegistryConfig } from "../index.ts";

export interface TestRegistry extends AsyncDisposable {
  readonly url: string;
  readonly root: string;
  readonly port: ImagePort;
  readonly client: OciClient;
  readonly context: ReturnType<typeof testContext>;
  /** Ends the service and starts it anew on the same directory. */
  restart(): Promise<TestRegistry>;
}

/** An image-registry in this process that serves HTTP on a free port. */
export async function startRegistry(config: Partial<ImageRegistryConfig> = {}): Promise<TestRegistry> {
  const directory = config.root === undefined ? temporaryDirectory("pv-registry-") : undefined;
  const root = config.root ?? directory!.path;
  const context = testContext();
  const service = await createService({ http: "127.0.0.1:0", ...config, root }, {}, context).catch((error: unknown) => {
    directory?.[Symbol.dispose]();
    throw error;
  });
  const port = mediated(service.contract, service.implementation);
  const { url } = await port.describeRegistry({});
  let kept = false;
  return {
    url,
    root,
    port,
    context,
    client: nodeOciClient(url),
    async restart() {
      kept = true;
      await service.close();
      const next = await startRegistry({ ...config, root });
      return { ...next, [Symbol.asyncDispose]: async () => (await next[Symbol.asyncDispose](), directory?.[Symbol.dispose]()) };
    },
    async [Symbol.asyncDispose]() {
      if (kept) return;
      await service.close();
      directory?.[Symbol.dispose]();
    },
  };
}
