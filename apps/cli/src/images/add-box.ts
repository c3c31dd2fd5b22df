import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import type { Box, ImagePort } from "@polyvisor/contracts/image";
import { parseReference } from "@polyvisor/image-spec";
import { repository } from "@polyvisor/oci-client";
import type { Cli } from "../cli.ts";
import { CliError, UsageError } from "../cli-error.ts";
import { formatBytes } from "../format/quantity.ts";
import { GUEST_ARCHITECTURE, isRemote, localRegistry, openImage, type ImagePlace } from "./image-place.ts";
import { addBoxLazily } from "./lazy-box.ts";
import { Origins, type Origin } from "./origins.ts";
import { transfer, TransferProgress } from "./transfer.ts";
import { chooseVersion, readCatalogue, type CatalogueVersion } from "./vagrant-catalogue.ts";

export interface AddOptions {
  /** name[:tag] here; default: as at the source. */
  readonly name?: string;
  /** Constraint on a catalogue's versions. */
  readonly version?: string;
  /** Of a registry's box: leave the disk's content there until a machine touches it. */
  readonly lazy?: boolean;
}

/** Brings a box here from a registry, a file, or Vagrant's catalogue JSON. Everything is checked against its digest before it is a box. */
export async function addBox(cli: Cli, images: ImagePort, what: string, options: AddOptions): Promise<Box> {
  const catalogue = await asCatalogue(what);
  if (!catalogue && options.version !== undefined) throw new UsageError("--version chooses among a catalogue's versions; in a registry name a tag: name:tag");
  return catalogue ? addFromCatalogue(cli, images, what, catalogue, options) : addImage(cli, images, what, { as: options.name, lazy: options.lazy === true });
}

async function addFromCatalogue(cli: Cli, images: ImagePort, what: string, text: string, options: AddOptions): Promise<Box> {
  const box = readCatalogue(text, what, GUEST_ARCHITECTURE);
  const version = chooseVersion(box, options.version);
  cli.note(`${box.name} ${version.version} from ${what}`);
  const scratch = await mkdtemp(join(tmpdir(), "hv-box-"));
  try {
    const from = await catalogueFile(cli, what, version, scratch);
    const origin = (digest: string): Origin => ({ kind: "catalogue", from: what, version: version.version, digest });
    return await addImage(cli, images, from, { as: options.name ?? `${box.name.toLowerCase()}:${version.version.replaceAll(/[^A-Za-z0-9._-]/g, "-")}`, lazy: options.lazy === true, originOf: origin });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

interface Wanted {
  readonly as: string | undefined;
  readonly lazy: boolean;
  readonly originOf?: (digest: string) => Origin;
}

async function addImage(cli: Cli, images: ImagePort, what: string, { as, lazy, originOf }: Wanted): Promise<Box> {
  const place = await openImage(images, what);
  try {
    if (place.kind === "local") throw new UsageError(`"${what}" names no registry, no file and no catalogue; recipes are built with: hv box build ${what}`);
    const wanted = parseReference(as ?? place.name);
    const tag = wanted.tag ?? (place.tag || "latest");
    const progress = new TransferProgress(cli);
    const target = repository(await localRegistry(images), wanted.name, { onProgress: progress.onProgress });
    if (lazy && place.kind !== "remote") throw new UsageError(`--lazy leaves the disk in a registry; ${what} is a file`);
    const namedDigest = lazy ? await addBoxLazily(cli, images, place, target, wanted.name, tag) : (await transfer(cli, place, target, progress, { tag, boxOnly: true })).namedDigest;
    const box = (await images.resolveBox({ reference: `${wanted.name}:${tag}` })).box!;
    new Origins(cli.home).set(`${wanted.name}:${tag}`, originOf?.(namedDigest) ?? originOfPlace(place, what, namedDigest));
    return box;
  } finally {
    await place.close();
  }
}

/** What is remembered of a box that came from there. */
export function originOfPlace(place: ImagePlace, what: string, digest: string): Origin {
  return place.kind === "remote" ? { kind: "registry", from: what, digest } : { kind: "file", from: resolve(what), digest };
}

/** The JSON of a catalogue that is a file or behind a URL; undefined when the text means something else. */
async function asCatalogue(what: string): Promise<string | undefined> {
  const path = what.startsWith("file:") ? fileURLToPath(what) : what;
  if (path.endsWith(".json") && existsSync(path)) return readFile(path, "utf8");
  if (!/^https?:\/\/.*\.json(\?|$)/.test(what)) return undefined;
  const response = await fetchUrl(what);
  if (Number(response.headers.get("content-length") ?? 0) > 4 << 20) throw new CliError(`${what} has more than 4 MiB; it is no catalogue`);
  return response.text();
}

/** What `openImage` takes: a reference as it is, a file by its path (checked), a URL downloaded into `scratch`. */
async function catalogueFile(cli: Cli, catalogue: string, { url, checksum }: CatalogueVersion, scratch: string): Promise<string> {
  if (!/^(https?|file):|^\.{0,2}\//.test(url) && isRemote(url)) {
    if (checksum) cli.note("  (the catalogue's checksum is not needed: a registry's content is checked by digest)");
    return url;
  }
  if (/^https?:/.test(url) && !/\.(box|tar|pv)(\?|$)/.test(url)) return url; // a registry behind an explicit scheme
  let path: string;
  if (/^https?:/.test(url)) {
    path = join(scratch, "downloaded.box");
    cli.note(`  download ${url}`);
    const response = await fetchUrl(url);
    await pipeline(Readable.fromWeb(response.body as never), createWriteStream(path));
  } else {
    path = url.startsWith("file:") ? fileURLToPath(url) : resolve(/^https?:/.test(catalogue) ? "." : dirname(catalogue), url);
  }
  if (!existsSync(path)) throw new CliError(`${catalogue} names ${path}, which is not there`);
  if (checksum) {
    const hash = createHash(checksum.type);
    let bytes = 0;
    for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) {
      hash.update(piece as Buffer);
      bytes += (piece as Buffer).length;
    }
    const got = hash.digest("hex");
    if (got !== checksum.value) throw new CliError(`${path} (${formatBytes(bytes)}) has the ${checksum.type} ${got}, the catalogue says ${checksum.value}; it is not what its maker published`);
  }
  return path;
}

async function fetchUrl(url: string): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new CliError(`${url} cannot be reached: ${((error as Error).cause as Error | undefined)?.message ?? (error as Error).message}`);
  }
  if (!response.ok || !response.body) throw new CliError(`${url} answers ${response.status} ${response.statusText}`);
  return response;
}
