/** `[scheme://]host[:port]/name[:tag][@digest]`: something in a registry on the network. */
import { ImageSpecError } from "./image-spec-error.ts";
import { formatReference, parseReference, type Reference } from "./reference.ts";

export interface RemoteReference extends Reference {
  /** Origin of the registry's URL, e.g. "https://registry.example:5000". */
  readonly origin: string;
}

/** Hosts that are spoken to in plain HTTP unless a scheme says otherwise, as Docker does (RFC 6761 section 6.3, RFC 1122 section 3.2.1.3). */
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?$/;
const HOST = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?$/;

export function parseRemoteReference(text: string): RemoteReference {
  const [, scheme, rest = ""] = /^(?:(https?):\/\/)?(.*)$/s.exec(text) ?? [];
  const slash = rest.indexOf("/");
  const host = rest.slice(0, Math.max(0, slash));
  const named = scheme !== undefined || /[.:]/.test(host) || host === "localhost";
  if (slash < 0 || !named || !HOST.test(host)) {
    throw new ImageSpecError("reference", 'a registry\'s host and a name, such as "registry.example/debian/minimal:13" or "localhost:5000/web"', text);
  }
  return { origin: `${scheme ?? (LOOPBACK.test(host) ? "http" : "https")}://${host}`, ...parseReference(rest.slice(slash + 1)) };
}

export function formatRemoteReference(reference: RemoteReference): string {
  const host = reference.origin.replace(/^https?:\/\//, "");
  const usual = reference.origin.startsWith("http://") === LOOPBACK.test(host);
  return `${usual ? host : reference.origin}/${formatReference(reference)}`;
}
