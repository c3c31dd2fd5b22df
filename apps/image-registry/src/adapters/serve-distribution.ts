import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContractError } from "@polyvisor/contracts";
import { nodeOciClient } from "@polyvisor/oci-client/node";
import type { ServiceContext } from "@polyvisor/service-kit";
import type { ImageRegistryConfig } from "../config.ts";
import { Access } from "../core/distribution/access.ts";
import type { DistributionRequest, DistributionResponse } from "../core/distribution/message.ts";
import { PullThrough } from "../core/distribution/pull-through.ts";
import { routeOf } from "../core/distribution/route.ts";
import type { ImageService } from "../core/image-service.ts";
import { listenHttp, type HttpListener } from "./http-listener.ts";
import { Passwords } from "./passwords.ts";
import { jsonWebTokens } from "./tokens.ts";

/** Serves the distribution API as configured. With port 0 the port of the last time is tried first, so that image names stay good. */
export async function serveDistribution(service: ImageService, config: ImageRegistryConfig, { log, clock }: ServiceContext): Promise<HttpListener> {
  const { tlsCert, tlsKey } = config;
  if ((tlsCert === "") !== (tlsKey === "")) throw new ContractError("invalid", "https needs both --tls-cert and --tls-key");
  const handle = handler(service, config, { log, clock });
  const listen = (address: string): Promise<HttpListener> => listenHttp({ address, tlsCert, tlsKey, log, handle });
  const plain = tlsCert === "" && config.htpasswd !== "" && !/^(?:127\.|localhost|\[::1\])/.test(config.http);
  if (plain) log.warn({ http: config.http }, "passwords travel in the clear: give --tls-cert and --tls-key, or put a proxy with TLS in front");
  if (!config.http.endsWith(":0")) {
    return listen(config.http).catch((cause: unknown) => {
      throw new ContractError("unavailable", `the OCI distribution API cannot be served on ${config.http}: ${(cause as Error).message}; choose another address (--http or PV_REGISTRY_HTTP)`, { cause });
    });
  }
  const file = join(config.root, "http-port");
  const last = readPort(file);
  const again = last === undefined ? undefined : await listen(config.http.replace(/:0$/, `:${last}`)).catch(() => undefined);
  if (again) return again;
  const listener = await listen(config.http);
  // Another process of the same directory may have the port: it is the first one's to keep.
  if (last === undefined) writeFileSync(file, `${new URL(listener.url).port}\n`);
  return listener;
}

/** Access first, then the cache of an upstream registry, then the registry itself; each only where it is configured. */
function handler(service: ImageService, config: ImageRegistryConfig, { log, clock }: Pick<ServiceContext, "log" | "clock">): (request: DistributionRequest) => Promise<DistributionResponse> {
  const { distribution, blobs, storage } = service;
  const access =
    config.htpasswd === ""
      ? undefined
      : new Access({
          challenge: config.authChallenge,
          anonymousPull: config.anonymousPull,
          passwords: new Passwords(config.htpasswd),
          tokens: jsonWebTokens(join(config.root, "token-secret")),
          publicUrl: config.publicUrl,
          scheme: config.tlsCert === "" ? "http" : "https",
        });
  const cache =
    config.upstream === ""
      ? undefined
      : new PullThrough({
          upstream: nodeOciClient(new URL(config.upstream).origin),
          prefix: config.upstreamPrefix,
          distribution,
          blobs,
          catalogue: storage.catalogue,
          now: () => clock.now(),
          warn: (message, err) => log.warn({ err }, message),
        });
  return async (request) => {
    const route = routeOf(request.path);
    if (access && route.kind === "token" && request.method === "GET") return access.token(request);
    await access?.check(request, route);
    return cache ? cache.handle(request, route) : distribution.handle(request, route);
  };
}

function readPort(file: string): number | undefined {
  try {
    const port = Number(readFileSync(file, "utf8"));
    return port > 0 && port < 65_536 ? port : undefined;
  } catch {
    return undefined;
  }
}
