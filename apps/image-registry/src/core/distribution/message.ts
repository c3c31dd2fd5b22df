import type { File } from "../files.ts";

/** One HTTP request, without HTTP: what adapters/http-listener.ts makes of it. */
export interface DistributionRequest {
  readonly method: string;
  /** Undecoded path. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** The body, once; its pieces belong to who reads them. Ends with an error when the client goes away in the middle of it. */
  readonly body: AsyncIterable<Uint8Array>;
  /** Gives up on the rest of the body. */
  abort(): void;
}

export interface DistributionResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | FilePart | StreamPart;
  /** For HEAD, whose body is not sent but whose Content-Length is (RFC 9110 section 9.3.2). */
  readonly bytes?: number;
}

/** Bytes of a file; whoever sends them closes it. */
export interface FilePart {
  readonly file: File;
  readonly offset: number;
  readonly bytes: number;
}

/** Bytes that come from somewhere else; an error in the middle breaks the answer off. */
export interface StreamPart {
  readonly pieces: AsyncIterable<Uint8Array>;
  readonly bytes: number;
}

export function empty(status: number, headers: Readonly<Record<string, string>> = {}): DistributionResponse {
  return { status, headers, bytes: 0 };
}

const encoder = new TextEncoder();
export function json(status: number, text: string, headers: Readonly<Record<string, string>> = {}): DistributionResponse {
  return { status, headers: { "content-type": "application/json", ...headers }, body: encoder.encode(text) };
}
