import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { writeErrors } from "@polyvisor/image-spec";
import type { ServiceContext } from "@polyvisor/service-kit";
import { refusal } from "../core/distribution/distribution-error.ts";
import type { DistributionRequest, DistributionResponse, FilePart, StreamPart } from "../core/distribution/message.ts";

export interface HttpOptions {
  /** "host:port"; port 0: any. */
  readonly address: string;
  /** PEM files; both or none. */
  readonly tlsCert: string;
  readonly tlsKey: string;
  readonly log: ServiceContext["log"];
  /** Default: {@link TIMEOUTS}. */
  readonly timeouts?: { readonly headMs: number; readonly idleMs: number };
  handle(request: DistributionRequest): Promise<DistributionResponse>;
}

export interface HttpListener {
  readonly url: string;
  close(): Promise<void>;
}

/** A request's head must be whole by then (clients that drip bytes are cut off: slow-loris); a body may take as long as it likes, as long as bytes come. */
const TIMEOUTS = { headMs: 20_000, idleMs: 60_000 };
/** A refused request's body is read on for so much, so that the client gets to read the refusal; then the connection ends. */
const LEFT_OVER_LIMIT_BYTES = 1024 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;
const MAX_CONNECTIONS = 4096;
const SEND_BYTES = 512 * 1024;
const ONE_WRITE_BYTES = 16 * 1024;

/** Serves the distribution API over HTTP/1.1, in TLS where a certificate is given. */
export async function listenHttp(options: HttpOptions): Promise<HttpListener> {
  const secure = options.tlsCert !== "";
  const listener: RequestListener = (message, response) => void serve(options, message, response);
  const { headMs, idleMs } = options.timeouts ?? TIMEOUTS;
  const common = { maxHeaderSize: MAX_HEADER_BYTES, headersTimeout: headMs, requestTimeout: 0, keepAliveTimeout: idleMs, connectionsCheckingInterval: headMs / 4 };
  const server: Server = secure
    ? createSecureServer({ ...common, cert: readFileSync(options.tlsCert), key: readFileSync(options.tlsKey) }, listener)
    : createServer(common, listener);
  server.timeout = idleMs;
  server.maxConnections = MAX_CONNECTIONS;
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    if (!socket.writable || error.code === "ECONNRESET") return void socket.destroy();
    const [status, reason] = error.code === "HPE_HEADER_OVERFLOW" ? [431, "Request Header Fields Too Large"] : error.code === "ERR_HTTP_REQUEST_TIMEOUT" ? [408, "Request Timeout"] : [400, "Bad Request"];
    const body = writeErrors("UNSUPPORTED", `not a request that this registry understands: ${reason}`);
    socket.end(`HTTP/1.1 ${status} ${reason}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`);
  });
  const { host, port } = hostAndPort(options.address);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const bound = server.address() as AddressInfo;
  const shown = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return {
    url: `${secure ? "https" : "http"}://${shown}:${bound.port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function hostAndPort(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(address.slice(colon + 1)) };
}

async function serve({ handle, log }: HttpOptions, message: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method = "GET", url = "/" } = message;
  const question = url.indexOf("?");
  const request: DistributionRequest = {
    method,
    path: question < 0 ? url : url.slice(0, question),
    query: new URLSearchParams(question < 0 ? "" : url.slice(question + 1)),
    headers: message.headers as Record<string, string | undefined>,
    // Leaving the loop early must not end the connection: the client is to read why.
    body: { [Symbol.asyncIterator]: () => message.iterator({ destroyOnReturn: false }) },
    abort: () => void message.destroy(),
  };
  let answer: DistributionResponse;
  try {
    answer = await handle(request);
  } catch (error) {
    if (message.destroyed && !message.complete) return void response.destroy(); // the client went away, or another took its upload over
    const known = refusal(error);
    if (!known || known.status >= 500) log.error({ method, url: url.slice(0, 300), err: error }, "request failed");
    answer = known ?? { status: 500, headers: { "content-type": "application/json" }, body: new TextEncoder().encode(writeErrors("UNSUPPORTED", "the registry failed; its log says why")) };
  }
  try {
    await send(message, response, answer);
  } catch (error) {
    if (!response.destroyed) log.warn({ method, url: url.slice(0, 300), err: error }, "answer could not be sent");
    response.destroy();
  }
}

async function send(message: IncomingMessage, response: ServerResponse, { status, headers, body, bytes }: DistributionResponse): Promise<void> {
  const length = body instanceof Uint8Array ? body.length : (body?.bytes ?? bytes ?? 0);
  const own: Record<string, string | number> = { "docker-distribution-api-version": "registry/2.0", ...headers };
  // RFC 9110 section 8.6: none with 204, and with 304 only what GET would have said.
  if (status !== 204 && status !== 304) own["content-length"] = length;
  if (!message.complete && !(await drained(message))) own["connection"] = "close";
  response.writeHead(status, own);
  const head = message.method === "HEAD";
  if (head || body === undefined || body instanceof Uint8Array) {
    if (body !== undefined && "file" in body) await body.file.close();
    if (head || !(body instanceof Uint8Array)) response.end();
    else if (body.length > ONE_WRITE_BYTES) response.end(body);
    // A string leaves with the head in one write, which costs less than two buffers in one writev; latin1 keeps every byte.
    else response.end(Buffer.from(body.buffer, body.byteOffset, body.length).toString("latin1"), "latin1");
    return;
  }
  if ("pieces" in body) return sendPieces(response, body);
  try {
    await sendFile(response, body);
  } finally {
    await body.file.close();
  }
}

/** Two buffers: one is read while the other is sent. */
async function sendFile(response: ServerResponse, { file, offset, bytes }: FilePart): Promise<void> {
  const buffers = [Buffer.allocUnsafe(Math.min(SEND_BYTES, bytes)), Buffer.allocUnsafe(Math.min(SEND_BYTES, bytes))];
  const sent: (Promise<void> | undefined)[] = [undefined, undefined];
  let broken: Error | undefined;
  for (let at = 0, turn = 0; at < bytes; turn ^= 1) {
    const part = buffers[turn]!.subarray(0, Math.min(SEND_BYTES, bytes - at));
    await sent[turn]; // its last content has left
    if (broken) throw broken;
    await file.read(offset + at, part);
    at += part.length;
    sent[turn] = new Promise((resolve) => {
      response.write(part, (error) => {
        broken ??= error ?? undefined;
        resolve();
      });
    });
  }
  await Promise.all(sent);
  if (broken) throw broken;
  response.end();
}

async function sendPieces(response: ServerResponse, { pieces }: StreamPart): Promise<void> {
  for await (const piece of pieces) {
    if (response.destroyed) return; // ends the source, too
    await new Promise<void>((resolve, reject) => response.write(piece, (error) => (error ? reject(error) : resolve())));
  }
  response.end();
}

/** Reads what is left of a body that nobody wanted, if it is not much. */
function drained(message: IncomingMessage): Promise<boolean> {
  return new Promise((resolve) => {
    let left = LEFT_OVER_LIMIT_BYTES;
    const stop = (whole: boolean): void => {
      message.off("data", take);
      resolve(whole);
    };
    const take = (piece: Buffer): void => {
      left -= piece.length;
      if (left < 0) stop(false);
    };
    message.on("data", take);
    message.once("end", () => stop(true));
    message.once("close", () => stop(false));
    if (message.destroyed) stop(false);
    message.resume();
  });
}
