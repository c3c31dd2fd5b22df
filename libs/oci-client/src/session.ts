import { readErrors } from "@polyvisor/image-spec";
import { Authorizer, type Credentials } from "./authorizer.ts";
import { OciClientError, type OciProblem } from "./oci-client-error.ts";

export interface SessionOptions {
  /** e.g. "https://registry.example" (image-spec's RemoteReference.origin). */
  readonly origin: string;
  readonly fetch?: typeof fetch;
  readonly credentials?: Credentials;
  /** Requests that may be repeated are tried so often on network errors, 429 and 5xx. */
  readonly attempts?: number;
  readonly userAgent?: string;
  readonly signal?: AbortSignal;
}

export interface Ask {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Absolute, or relative to the registry. */
  readonly url: string | URL;
  readonly scope: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** Statuses that are answers; others become errors. */
  readonly expect: readonly number[];
  /** What is being done, for messages: "read the manifest debian:13". */
  readonly what: string;
  /** False: sending it twice could do harm (a chunk); the caller resumes by itself. */
  readonly repeatable?: boolean;
}

const ATTEMPTS = 4;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 10_000;
/** Of an error's body, this much is read. */
const ERROR_LIMIT_BYTES = 64 * 1024;
const MIGHT_PASS: readonly number[] = [408, 425, 429, 500, 502, 503, 504];

/** HTTP with one registry: authorization, retries, errors in words. */
export class Session {
  readonly origin: string;
  readonly #options: SessionOptions;
  readonly #fetch: typeof fetch;
  readonly #authorizer: Authorizer;

  constructor(options: SessionOptions) {
    this.origin = options.origin;
    this.#options = options;
    this.#fetch = options.fetch ?? fetch;
    this.#authorizer = new Authorizer({ fetch: this.#fetch, credentials: options.credentials, now: () => Date.now() });
  }

  async ask(ask: Ask): Promise<Response> {
    const attempts = ask.repeatable === false ? 1 : (this.#options.attempts ?? ATTEMPTS);
    for (let attempt = 1; ; attempt++) {
      const last = attempt >= attempts;
      let response: Response;
      try {
        response = await this.#authorized(ask);
      } catch (error) {
        if (error instanceof OciClientError) throw error;
        this.#options.signal?.throwIfAborted();
        if (last) throw new OciClientError("unavailable", `${ask.what}: ${this.origin} cannot be reached (${reasonOf(error)})`, { cause: error });
        await pause(attempt);
        continue;
      }
      if (ask.expect.includes(response.status)) return response;
      if (last || !MIGHT_PASS.includes(response.status)) throw await this.#error(ask, response);
      await response.body?.cancel();
      await pause(attempt, response.headers.get("retry-after"));
    }
  }

  /** One request; a 401's challenge is answered once. */
  async #authorized(ask: Ask): Promise<Response> {
    const url = new URL(ask.url, this.origin);
    // A registry may send an upload or a blob elsewhere; its token stays with it.
    const own = url.origin === new URL(this.origin).origin;
    for (let challenged = false; ; challenged = true) {
      const authorization = own ? this.#authorizer.header(ask.scope) : undefined;
      const response = await this.#fetch(url, {
        method: ask.method,
        headers: {
          "user-agent": this.#options.userAgent ?? "polyvisor",
          // Bytes as they are: a digest is over them, and an inflated answer has no bound.
          "accept-encoding": "identity",
          ...ask.headers,
          ...(authorization === undefined ? {} : { authorization }),
        },
        ...(ask.body === undefined ? {} : { body: ask.body as Uint8Array<ArrayBuffer> }),
        ...(this.#options.signal ? { signal: this.#options.signal } : {}),
      });
      if (response.status !== 401 || challenged || !own) return response;
      if (!(await this.#authorizer.answer(this.origin, ask.scope, response, authorization))) return response;
      await response.body?.cancel();
    }
  }

  async #error({ what }: Ask, response: Response): Promise<OciClientError> {
    const { status } = response;
    const said = readErrors(await readText(response, ERROR_LIMIT_BYTES));
    const problem: OciProblem =
      status === 401 ? "unauthorized" : status === 403 ? "denied" : status === 404 ? "not-found" : status < 500 && status !== 429 ? "invalid" : "unavailable";
    const hint = status === 401 ? ` (${this.#options.credentials ? "the credentials were refused" : "it wants credentials; log in with `docker login` or give a user name and password"})` : "";
    const detail = said ? `${said.code}${said.message ? `, ${said.message}` : ""}` : "no explanation";
    return new OciClientError(problem, `${what}: ${this.origin} answered ${status}: ${detail}${hint}`, { status, ...(said ? { code: said.code } : {}) });
  }
}

/** At most so many bytes of a body, as text. */
export async function readText(response: Response, limitBytes: number): Promise<string> {
  return new TextDecoder().decode((await readBytes(response, limitBytes)).bytes);
}

/** At most so many bytes of a body; `whole` false: there were more. */
export async function readBytes(response: Response, limitBytes: number): Promise<{ bytes: Uint8Array; whole: boolean }> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of response.body ?? []) {
    pieces.push(piece);
    length += piece.length;
    if (length > limitBytes) break; // ends the request
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return { bytes: bytes.subarray(0, limitBytes), whole: length <= limitBytes };
}

function reasonOf(error: unknown): string {
  const cause = (error as { cause?: { code?: string; message?: string } }).cause;
  return cause?.code ?? cause?.message ?? (error as Error).message;
}

/** Doubling, with jitter so that many clients do not come back together; Retry-After (RFC 9110 section 10.2.3) in seconds is obeyed. */
export function pause(attempt: number, retryAfter?: string | null): Promise<void> {
  const asked = /^\d{1,4}$/.test(retryAfter ?? "") ? Number(retryAfter) * 1000 : 0;
  const ms = Math.min(LONGEST_PAUSE_MS, Math.max(asked, FIRST_PAUSE_MS * 2 ** (attempt - 1) * (0.5 + Math.random())));
  return new Promise((resolve) => setTimeout(resolve, ms));
}
