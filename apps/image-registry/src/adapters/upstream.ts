import { nodeOciClient } from "@polyvisor/oci-client/node";
import type { OciClient } from "@polyvisor/oci-client";
import type { Upstream } from "../core/lazy-blobs.ts";

/** Ranges of blobs of other registries over HTTP, with the credentials that `docker login` left. */
export function httpUpstream(): Upstream {
  const clients = new Map<string, OciClient>();
  return {
    readRange: (origin, digest, offset, length) => {
      let client = clients.get(origin.registry);
      if (!client) clients.set(origin.registry, (client = nodeOciClient(origin.registry)));
      return client.range(origin.repository, digest, offset, length);
    },
  };
}
