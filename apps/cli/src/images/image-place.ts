import { existsSync } from "node:fs";
import { ContractError } from "@polyvisor/contracts";
import type { ImagePort } from "@polyvisor/contracts/image";
import { checkTag, formatReference, ImageSpecError, parseReference, parseRemoteReference, type OciDescriptor } from "@polyvisor/image-spec";
import { repository, type ImageSource, type ImageTarget, type OciClient } from "@polyvisor/oci-client";
import { nodeOciClient } from "@polyvisor/oci-client/node";
import { CliError, UsageError } from "../cli-error.ts";
import { openLayoutFiles } from "./layout-files.ts";
import { OciLayout } from "./oci-layout.ts";

/** Architecture of the guests that Polyvisor runs: what is taken out of an index of many. */
export const GUEST_ARCHITECTURE = "riscv64";
const DEFAULT_TAG = "latest";

/** An image somewhere, and how to read it. */
export interface ImagePlace {
  readonly source: ImageSource;
  /** Tag or digest at the source. */
  readonly reference: string;
  /** Repository name; for a file made of its name. */
  readonly name: string;
  /** Empty: the source was named by digest alone. */
  readonly tag: string;
  /** For people. */
  readonly text: string;
  readonly kind: "local" | "remote" | "file";
  close(): Promise<void>;
}

/** A client of this user's own registry. */
export async function localRegistry(images: ImagePort): Promise<OciClient> {
  const { url } = await images.describeRegistry({});
  if (url === "") throw new CliError("the registry of this stack is not served over HTTP; start the stack with PV_REGISTRY_HTTP=127.0.0.1:0 (hv stack down, then up)");
  return nodeOciClient(url);
}

/**
 * What a user may call an image: a file or directory that exists (an OCI layout, `PATH@NAME` for one of several), something with a
 * registry's host in front, else a name in this user's registry.
 */
export async function openImage(images: ImagePort, text: string): Promise<ImagePlace> {
  const at = text.lastIndexOf("@");
  for (const [path, entry] of [[text, ""], ...(at > 0 ? [[text.slice(0, at), text.slice(at + 1)]] : [])] as [string, string][]) {
    if (!existsSync(path) || !/[./]/.test(path)) continue;
    const files = await openLayoutFiles(path);
    const stem = path.replace(/\/+$/, "").split("/").at(-1)!.replace(/\.[^.]*$/, "").toLowerCase().replaceAll(/[^a-z0-9]+/g, "-").replaceAll(/^-+|-+$/g, "");
    return { source: new OciLayout(files), reference: entry, name: stem || "image", tag: entry.includes(":") ? "" : entry, text: path, kind: "file", close: () => files.close() };
  }
  if (/^\.{0,2}\//.test(text)) throw new CliError(`there is no file ${text}`);
  if (isRemote(text)) {
    const { origin, name, tag, digest } = parseRemoteReference(text);
    const source = repository(nodeOciClient(origin), name);
    return { source, reference: digest ?? tag ?? DEFAULT_TAG, name, tag: tag ?? (digest ? "" : DEFAULT_TAG), text, kind: "remote", close: async () => {} };
  }
  const { name, tag, digest } = parseReference(text);
  const client = await localRegistry(images);
  const found = digest ?? tag ?? (await defaultTag(images, client, name));
  return { source: repository(client, name), reference: found, name, tag: tag ?? (digest ? "" : found), text: formatReference({ name, tag: tag ?? (digest ? undefined : found), digest }), kind: "local", close: async () => {} };
}

/** Of a box what ResolveBox says ("latest", else the tag set last); of other images "latest", else the only one. */
async function defaultTag(images: ImagePort, client: OciClient, name: string): Promise<string> {
  try {
    return (await images.resolveBox({ reference: name })).box!.tag;
  } catch {
    const tags: string[] = [];
    for await (const tag of client.tags(name)) tags.push(tag);
    if (tags.length === 1) return tags[0]!;
    if (tags.includes(DEFAULT_TAG)) return DEFAULT_TAG;
    throw new ContractError("not-found", tags.length === 0 ? `there is no image ${name} in this registry; hv registry show lists what there is` : `${name} has several tags, none of them latest: ${tags.join(", ")}`);
  }
}

/** Does the text begin with a registry's host? */
export function isRemote(text: string): boolean {
  try {
    parseRemoteReference(text);
    return true;
  } catch (error) {
    if (!(error instanceof ImageSpecError)) throw error;
    return /^https?:\/\//.test(text);
  }
}

/** Somewhere to push to. */
export function openTarget(text: string, onProgress: (digest: string, done: number, total: number) => void): { target: ImageTarget; tag: string; client: OciClient; name: string } {
  if (!isRemote(text)) throw new UsageError(`"${text}" names no registry; expected a host and a name, such as registry.example/debian/13:1 or localhost:5000/web:1`);
  const { origin, name, tag, digest } = parseRemoteReference(text);
  if (digest !== undefined) throw new UsageError(`push to a tag, not to a digest: ${text}`);
  const client = nodeOciClient(origin);
  return { target: repository(client, name, { onProgress }), tag: checkTag(tag ?? DEFAULT_TAG), client, name };
}

export type PlatformEntry = OciDescriptor & { platform?: { architecture: string; os: string } };

/** The manifest of the guest's architecture when the reference is an index of several. */
export function chooseGuest(entries: readonly PlatformEntry[], text: string, architecture = GUEST_ARCHITECTURE): PlatformEntry {
  const fits = entries.filter(({ platform }) => platform?.architecture === architecture);
  if (fits.length > 0) return fits[0]!;
  const has = [...new Set(entries.map(({ platform }) => (platform ? `${platform.os}/${platform.architecture}` : "unnamed")))].join(", ");
  throw new CliError(`${text} has nothing for ${architecture}; it has: ${has || "nothing at all"}`);
}
