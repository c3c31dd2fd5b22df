import { asContractError } from "@polyvisor/contracts";
import type { Box } from "@polyvisor/contracts/image";
import { BOX_ARTIFACT_TYPE, isIndexType, MEDIA_TYPES, parseReference, parseRemoteReference, readIndex, readManifestView } from "@polyvisor/image-spec";
import { repository, type FetchedManifest, type OciClient } from "@polyvisor/oci-client";
import { createHash } from "node:crypto";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { CliError, UsageError } from "../cli-error.ts";
import { originOfPlace } from "../images/add-box.ts";
import { formatBytes } from "../format/quantity.ts";
import { GUEST_ARCHITECTURE, isRemote, localRegistry, openImage, openTarget } from "../images/image-place.ts";
import { pullLazily } from "../images/lazy-pull.ts";
import { writeLayoutArchive } from "../images/oci-layout.ts";
import { Origins } from "../images/origins.ts";
import { packageMachine } from "../images/package-machine.ts";
import { transfer, TransferProgress } from "../images/transfer.ts";
import type { Stack } from "../stack/stacks.ts";

const FORGET = "rm -f /etc/ssh/ssh_host_*; : > /etc/machine-id";
/** A disk is blocks: nothing is left out of it. */
const IDENTITY_NOTE = "  the disk is in the box as it is, with the machine's ssh host keys, machine id and what its users left; hv package --help says how to go without";

/** hv push, hv pull, hv package. */
export function addPushPullCommands(program: Command, cli: Cli): void {
  addCommand(program, "package <machine>", "make a box out of a machine that is halted", [
    ["hv package web --as me/web:1", "machines can be made from it: hv up web2 --box me/web:1"],
    ["hv package web --output web.box", "one file: an OCI image layout in a tar archive; hv box add web.box"],
    [`hv exec web -- sh -c '${FORGET}'; hv halt web; hv package web`, "without the machine's ssh host key and machine id: each machine of the box makes its own"],
  ])
    .option("--as <name:tag>", "what to call the box (default: the machine's name)")
    .option("--output <file>", "also write it into a file")
    .action(async (machine: string, options: { as?: string; output?: string; json?: boolean }) => {
      const { orchestrator, images } = await cli.stacks.ofMachine(machine);
      const box = await packageMachine(orchestrator, images, machine, options.as ?? machine);
      if (box.disk) cli.note(IDENTITY_NOTE);
      if (options.output) await writeBoxFile(cli, images, box, options.output);
      cli.answer(options, { ...box, output: options.output ?? null }, () => `${box.name}:${box.tag} ${box.digest}${options.output ? `, written to ${options.output}` : ""}; next: hv up NAME --box ${box.name}:${box.tag}`);
    });

  addCommand(program, "push <what> <destination>", "push a box, an image or a halted machine to any OCI registry; what is there already is not sent", [
    ["hv push debian/13 registry.example/me/debian:13", "a box"],
    ["hv push web localhost:5000/web:1", "a machine: packaged first"],
    ["hv push debian/13 registry.example/me/debian:13 --index", "into an index of several architectures, keeping the others"],
  ])
    .option("--index", "the destination's tag is an index; take the place of this architecture in it")
    .action(async (what: string, destination: string, options: { index?: boolean; json?: boolean }) => {
      const progress = new TransferProgress(cli);
      const { target, tag, client, name } = openTarget(destination, progress.onProgress);
      const { stack, reference } = await whatToPush(cli, what);
      const place = await openImage(stack.images, reference);
      try {
        // An index goes as a whole, unless it is to become a part of another.
        const { manifest } = await transfer(cli, place, target, progress, { tag: options.index ? undefined : tag, ...(options.index ? {} : { architecture: "all" }) });
        const root = options.index ? await putIntoIndex(client, name, tag, manifest) : manifest;
        const pinned = destination.replace(/:[^:/]*$/, "");
        cli.answer(options, { reference: destination, digest: root.digest, mediaType: root.mediaType }, () => `${destination} ${root.digest}\n(exactly this one: ${pinned}@${root.digest})`);
      } finally {
        await place.close();
      }
    });

  addCommand(program, "pull <reference>", "bring an image or a box from any OCI registry into this user's", [
    ["hv pull registry.example/debian/13:13", ""],
    ["hv pull registry.example/library/alpine --architecture all", "an index with all it names"],
    ["hv pull registry.example/debian/13:13 --lazy", "boots before its disk is here"],
    ["hv pull registry.example/web@sha256:… --as web:fixed", "exactly that one, under a name of yours"],
  ])
    .option("--as <name:tag>", "what to call it here (default: as it is called there)")
    .option("--architecture <name>", "which one to take out of an index, or all", GUEST_ARCHITECTURE)
    .option("--lazy", "a box: without its disk, whose chunks come from there when a machine touches them")
    .action(async (reference: string, options: { as?: string; architecture: string; lazy?: boolean; json?: boolean }) => {
      const { images } = await cli.stacks.any();
      if (options.lazy) {
        if (!isRemote(reference)) throw new UsageError(`"${reference}" names no registry; expected a host in front, such as registry.example/${reference}`);
        const remote = parseRemoteReference(reference);
        const wanted = parseReference(options.as ?? remote.name);
        const as = { name: wanted.name, tag: wanted.tag ?? remote.tag ?? "latest" };
        const pulled = await pullLazily(cli, images, reference, as);
        cli.answer(options, { ...as, ...pulled }, () => `${as.name}:${as.tag} ${pulled.digest}; ${formatBytes(pulled.movedBytes)} moved, ${formatBytes(pulled.laterBytes)} come as they are touched`);
        return;
      }
      const place = await openImage(images, reference);
      try {
        if (place.kind === "local") throw new UsageError(`"${reference}" names no registry; expected a host in front, such as registry.example/${reference}`);
        const wanted = parseReference(options.as ?? place.name);
        const tag = wanted.tag ?? (place.tag || "latest");
        const progress = new TransferProgress(cli);
        const target = repository(await localRegistry(images), wanted.name, { onProgress: progress.onProgress });
        const { manifest: { bytes, digest, mediaType }, namedDigest } = await transfer(cli, place, target, progress, { tag, architecture: options.architecture });
        if (!isIndexType(mediaType) && readManifestView(bytes, mediaType).artifactType === BOX_ARTIFACT_TYPE) new Origins(cli.home).set(`${wanted.name}:${tag}`, originOfPlace(place, reference, namedDigest));
        cli.answer(options, { name: wanted.name, tag, digest, mediaType }, () => `${wanted.name}:${tag} ${digest}`);
      } finally {
        await place.close();
      }
    });
}

/** A box, an image of the registry or a file as it is; a machine as the box that is made of it. */
async function whatToPush(cli: Cli, what: string): Promise<{ stack: Stack; reference: string }> {
  const machine = /^[a-z0-9][a-z0-9-]{0,62}$/.test(what) ? await cli.stacks.findMachine(what) : undefined;
  if (machine === undefined) return { stack: await cli.stacks.any(), reference: what };
  const stack = await cli.stacks.ofMachine(what);
  const isBox = await stack.images.resolveBox({ reference: what }).then(
    () => true,
    (error: unknown) => {
      if (asContractError(error).condition === "not-found") return false;
      throw error;
    },
  );
  if (isBox) throw new CliError(`there is a machine and a box named ${what}; name the box with its tag (${what}:TAG), or package the machine first: hv package ${what} --as NAME`);
  cli.note(`packaging machine ${what}`);
  const box = await packageMachine(stack.orchestrator, stack.images, what, `machines/${what}`);
  return { stack, reference: `${box.name}:${box.tag}` };
}

async function writeBoxFile(cli: Cli, images: Stack["images"], box: Box, path: string): Promise<void> {
  const place = await openImage(images, `${box.name}:${box.tag}`);
  await writeLayoutArchive(path, `${box.name}:${box.tag}`, (target) => transfer(cli, place, target, new TransferProgress(cli), { tag: box.tag }).then(({ manifest }) => manifest));
}

/** Puts a manifest into the index behind a tag, in place of the one of its architecture; makes the index if there is none. */
async function putIntoIndex(client: OciClient, name: string, tag: string, manifest: FetchedManifest): Promise<FetchedManifest> {
  const there = (await client.resolve(name, tag)) ? await client.manifest(name, tag) : undefined;
  const kept = there && isIndexType(there.mediaType) ? readIndex(there.bytes).manifests.filter(({ platform }) => platform?.architecture !== GUEST_ARCHITECTURE) : [];
  const entry = { mediaType: manifest.mediaType, digest: manifest.digest, size: manifest.bytes.length, platform: { architecture: GUEST_ARCHITECTURE, os: "linux" } };
  const bytes = new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [...kept, entry] }));
  const index: FetchedManifest = { mediaType: MEDIA_TYPES.index, digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}`, bytes };
  await client.pushManifest(name, tag, index);
  return index;
}
