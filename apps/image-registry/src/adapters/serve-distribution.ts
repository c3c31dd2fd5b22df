import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContractError } from "@polyvisor/contracts";
import type { ServiceContext } from "@polyvisor/service-kit";
import type { ImageRegistryConfig } from "../config.ts";
import type { Distribution } from "../core/distribution/distribution.ts";
import { listenHttp, type HttpListener } from "./http-listener.ts";

/** Serves the distribution API as configured. With port 0 the port of the last time is tried first, so that image names stay good. */
export async function serveDistribution(distribution: Distribution, config: ImageRegistryConfig, log: ServiceContext["log"]): Promise<HttpListener> {
  const { tlsCert, tlsKey } = config;
  if ((tlsCert === "") !== (tlsKey === "")) throw new ContractError("invalid", "https needs both --tls-cert and --tls-key");
  const listen = (address: string): Promise<HttpListener> => listenHttp({ address, tlsCert, tlsKey, log, handle: (request) => distribution.handle(request) });
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

function readPort(file: string): number | undefined {
  try {
    const port = Number(readFileSync(file, "utf8"));
    return port > 0 && port < 65_536 ? port : undefined;
  } catch {
    return undefined;
  }
}
