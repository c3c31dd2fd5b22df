import { DistributionError } from "./distribution-error.ts";
import { json, type DistributionRequest, type DistributionResponse } from "./message.ts";
import type { Route } from "./route.ts";

export type Action = "pull" | "push" | "delete";

/** What a token allows (distribution's "Token Authentication Implementation": the `access` claim). */
export interface Grant {
  readonly type: "repository" | "registry";
  readonly name: string;
  readonly actions: readonly string[];
}

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

export interface AccessParts {
  /** How clients are told to identify themselves; both ways are taken. */
  readonly challenge: "token" | "basic";
  /** Everybody may pull. */
  readonly anonymousPull: boolean;
  readonly passwords: { verify(credentials: Credentials): Promise<boolean> };
  readonly tokens: {
    sign(subject: string, grants: readonly Grant[], lifeSeconds: number): Promise<string>;
    /** Undefined: not one of ours, or it has expired. */
    verify(token: string): Promise<readonly Grant[] | undefined>;
  };
  /** Scheme and host that clients reach us by, e.g. "https://registry.example"; empty: as the request says. */
  readonly publicUrl: string;
  readonly scheme: "http" | "https";
}

const TOKEN_LIFE_S = 300;
const MAX_SCOPES = 32;
const SERVICE = "polyvisor-registry";

/** Who may do what: users of the password file everything, others pull if that is allowed. */
export class Access {
  readonly #parts: AccessParts;
  constructor(parts: AccessParts) {
    this.#parts = parts;
  }

  /** Throws UNAUTHORIZED with the challenge that the client needs. */
  async check(request: DistributionRequest, route: Route): Promise<void> {
    const action: Action = request.method === "GET" || request.method === "HEAD" ? "pull" : request.method === "DELETE" ? "delete" : "push";
    const name = "name" in route ? route.name : undefined;
    const [scheme, value = ""] = (request.headers["authorization"] ?? "").split(" ", 2);
    const kind = scheme?.toLowerCase();
    if (kind === "basic" && (await this.#user(value)) !== undefined) return;
    if (kind === "bearer") {
      const grants = await this.#parts.tokens.verify(value);
      if (grants && (name === undefined ? route.kind === "base" || allows(grants, "registry", "catalog", "*") : allows(grants, "repository", name, action))) return;
    }
    // The base is where clients learn how to identify themselves, so it asks even where pulling is free.
    if (kind === "" && this.#parts.anonymousPull && action === "pull" && name !== undefined) return;
    throw this.#refusal(request, name, action, kind === "bearer");
  }

  /** The token server (distribution's "Token Authentication Specification"): GET /token?service=…&scope=…. */
  async token(request: DistributionRequest): Promise<DistributionResponse> {
    const header = request.headers["authorization"];
    const user = header === undefined ? undefined : await this.#user(header.replace(/^basic\s+/i, ""));
    if (header !== undefined && user === undefined) throw new DistributionError("UNAUTHORIZED", "unknown user or wrong password");
    const scopes = request.query.getAll("scope").flatMap((scope) => scope.split(" ")).filter((scope) => scope !== "");
    if (scopes.length > MAX_SCOPES) throw new DistributionError("DENIED", `${scopes.length} scopes, expected at most ${MAX_SCOPES}`, { status: 400 });
    const grants = scopes.flatMap((scope) => this.#granted(scope, user !== undefined));
    const token = await this.#parts.tokens.sign(user ?? "", grants, TOKEN_LIFE_S);
    return json(200, JSON.stringify({ token, access_token: token, expires_in: TOKEN_LIFE_S }), { "cache-control": "no-store" });
  }

  /** A scope that is not allowed is left out; the registry says so when it is used. */
  #granted(scope: string, known: boolean): Grant[] {
    const match = /^(repository|registry)(?:\([^)]*\))?:(.+):([a-z,*]+)$/.exec(scope);
    if (!match) return [];
    const [, type, name, wanted] = match as unknown as [string, Grant["type"], string, string];
    const actions = wanted.split(",").filter((action) => known || (this.#parts.anonymousPull && type === "repository" && action === "pull"));
    return actions.length > 0 ? [{ type, name, actions }] : [];
  }

  async #user(basic: string): Promise<string | undefined> {
    const text = decodeBase64(basic);
    const colon = text.indexOf(":");
    if (colon < 1) return undefined;
    const credentials = { username: text.slice(0, colon), password: text.slice(colon + 1) };
    return (await this.#parts.passwords.verify(credentials)) ? credentials.username : undefined;
  }

  #refusal(request: DistributionRequest, name: string | undefined, action: Action, hadToken: boolean): DistributionError {
    const { challenge, publicUrl, scheme } = this.#parts;
    const own = publicUrl || `${scheme}://${(request.headers["host"] ?? "localhost").replaceAll(/[^\w.:[\]-]/g, "")}`;
    const actions = action === "push" ? "pull,push" : action;
    const scope = name === undefined ? "" : `,scope="repository:${name}:${actions}"`;
    const header = challenge === "basic" ? `Basic realm="${SERVICE}"` : `Bearer realm="${own}/token",service="${SERVICE}"${scope}${hadToken ? ',error="insufficient_scope"' : ""}`;
    const what = name === undefined ? "this registry" : `to ${action} ${name}`;
    return new DistributionError("UNAUTHORIZED", `authentication is required for ${what}; log in first`, { headers: { "www-authenticate": header } });
  }
}

function allows(grants: readonly Grant[], type: Grant["type"], name: string, action: string): boolean {
  return grants.some((grant) => grant.type === type && grant.name === name && (grant.actions.includes(action) || grant.actions.includes("*")));
}

function decodeBase64(text: string): string {
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
  } catch {
    return "";
  }
}
