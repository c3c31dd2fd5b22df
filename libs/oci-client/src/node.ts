import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Credentials } from "./authorizer.ts";
import { OciClient, type ClientHash, type OciClientOptions } from "./client.ts";

/** A client with what Node brings: fetch, hashes, and the credentials that `docker login` left for the host. */
export function nodeOciClient(origin: string, options: Partial<Omit<OciClientOptions, "origin">> = {}): OciClient {
  const found = options.credentials ?? dockerCredentials(new URL(origin).host);
  return new OciClient({ newHash, ...options, origin, ...(found ? { credentials: found } : {}) });
}

function newHash(algorithm: string): ClientHash {
  const hash = createHash(algorithm);
  return { update: (data) => void hash.update(data), hex: () => hash.digest("hex") };
}

/**
 * From `auths` of $DOCKER_CONFIG/config.json, else ~/.docker/config.json, else podman's auth.json. Credential helpers
 * (programs) are not run.
 */
export function dockerCredentials(host: string, env: NodeJS.ProcessEnv = process.env): Credentials | undefined {
  const docker = join(env["DOCKER_CONFIG"] ?? join(env["HOME"] ?? homedir(), ".docker"), "config.json");
  const podman = env["REGISTRY_AUTH_FILE"] ?? (env["XDG_RUNTIME_DIR"] === undefined ? undefined : join(env["XDG_RUNTIME_DIR"], "containers", "auth.json"));
  for (const path of [docker, podman]) {
    const found = path === undefined ? undefined : credentialsIn(path, host);
    if (found) return found;
  }
  return undefined;
}

function credentialsIn(path: string, host: string): Credentials | undefined {
  let auths: Record<string, { auth?: unknown }>;
  try {
    auths = (JSON.parse(readFileSync(path, "utf8")) as { auths?: typeof auths }).auths ?? {};
  } catch {
    return undefined; // none, or not ours to complain about
  }
  const entry = auths[host] ?? auths[`https://${host}`] ?? auths[`https://${host}/v1/`] ?? auths[`https://${host}/v2/`];
  if (typeof entry?.auth !== "string") return undefined;
  const [username = "", ...password] = Buffer.from(entry.auth, "base64").toString("utf8").split(":");
  return username === "" ? undefined : { username, password: password.join(":") };
}
