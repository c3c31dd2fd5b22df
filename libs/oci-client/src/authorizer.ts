import { parseChallenges, type Challenge } from "@polyvisor/image-spec";
import { OciClientError } from "./oci-client-error.ts";

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** A token without expires_in lives for 60 seconds (Docker token specification, "Token Response Fields"). */
const TOKEN_LIFE_S = 60;
/** A token is not used in the last seconds of its life: the request has to arrive within it. */
const TOKEN_MARGIN_MS = 5_000;
const TOKEN_LIMIT_BYTES = 1024 * 1024;

/**
 * Answers a registry's challenges: Basic (RFC 7617), or Bearer with a token from the realm it names, with the
 * credentials if there are any (distribution's "Token Authentication Specification").
 */
export class Authorizer {
  readonly #fetch: typeof fetch;
  readonly #credentials: Credentials | undefined;
  readonly #now: () => number;
  /** By scope: a pull's token does not push. */
  readonly #tokens = new Map<string, { header: string; untilMs: number }>();

  constructor(options: { fetch: typeof fetch; credentials: Credentials | undefined; now: () => number }) {
    this.#fetch = options.fetch;
    this.#credentials = options.credentials;
    this.#now = options.now;
  }

  /** What to send with a request of that scope, as far as is known. */
  header(scope: string): string | undefined {
    const known = this.#tokens.get(scope);
    return known && known.untilMs > this.#now() ? known.header : undefined;
  }

  /** Gets what the challenge of a 401 asks for. False: it was sent already, or cannot be had. */
  async answer(origin: string, scope: string, refusal: Response, sent: string | undefined): Promise<boolean> {
    const challenges = parseChallenges(refusal.headers.get("www-authenticate"));
    const bearer = challenges.find(({ scheme, parameters }) => scheme === "bearer" && parameters["realm"] !== undefined);
    if (bearer) {
      const header = `Bearer ${await this.#token(origin, scope, bearer)}`;
      return header !== sent;
    }
    if (!challenges.some(({ scheme }) => scheme === "basic") || !this.#credentials) return false;
    const header = basic(this.#credentials);
    this.#tokens.set(scope, { header, untilMs: Infinity });
    return header !== sent;
  }

  async #token(origin: string, scope: string, { parameters }: Challenge): Promise<string> {
    const realm = new URL(parameters["realm"] as string, origin);
    // Credentials go nowhere in the clear unless the registry itself is asked in the clear.
    if (realm.protocol !== "https:" && !origin.startsWith("http:")) {
      throw new OciClientError("unauthorized", `the registry ${origin} wants a token from ${realm.origin}, which is not https; refused`);
    }
    if (parameters["service"] !== undefined) realm.searchParams.set("service", parameters["service"]);
    for (const each of (parameters["scope"] ?? scope).split(" ")) if (each !== "") realm.searchParams.append("scope", each);
    const response = await this.#fetch(realm, { headers: this.#credentials ? { authorization: basic(this.#credentials) } : {} });
    const text = await response.text();
    if (!response.ok) {
      const who = this.#credentials ? `as ${this.#credentials.username}` : "without credentials";
      throw new OciClientError("unauthorized", `the token server ${realm.origin} answered ${response.status} to a request ${who}; check the user name and password`, { status: response.status });
    }
    const answer = text.length <= TOKEN_LIMIT_BYTES ? (JSON.parse(text) as { token?: unknown; access_token?: unknown; expires_in?: unknown }) : {};
    const token = answer.token ?? answer.access_token;
    if (typeof token !== "string" || token === "") throw new OciClientError("protocol", `the token server ${realm.origin} answered without a token`);
    const life = typeof answer.expires_in === "number" ? answer.expires_in : TOKEN_LIFE_S;
    this.#tokens.set(scope, { header: `Bearer ${token}`, untilMs: this.#now() + life * 1000 - TOKEN_MARGIN_MS });
    return token;
  }
}

function basic({ username, password }: Credentials): string {
  const bytes = new TextEncoder().encode(`${username}:${password}`);
  return `Basic ${btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))}`;
}
