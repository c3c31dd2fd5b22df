import { BOX_ARTIFACT_TYPE, compareUnions, readManifestView, shown, type UnionEvent, type UnionFile } from "@polyvisor/image-spec";
import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { CliError } from "../cli-error.ts";
import { formatBytes } from "../format/quantity.ts";
import { table } from "../format/table.ts";
import { openImage, type ImagePlace } from "../images/image-place.ts";
import { readImageLayers, readImageManifest, type ImageLayers } from "../images/read-layers.ts";
import { shortType } from "../images/transfer.ts";

interface ImageOptions {
  json?: boolean;
  architecture?: string;
}

/** hv image layers|which|diff: the union view of an image. */
export function addImageCommands(program: Command, cli: Cli): void {
  const image = program.command("image").description("what an image is made of: which layer each file comes from, what is hidden, what differs (nothing is unpacked)");
  const sources = "an image is name[:tag] in this user's registry, host/name[:tag] in another, or an OCI layout (directory or tar file)";
  const command = (usage: string, description: string, examples: readonly [string, string][]): Command =>
    addCommand(image, usage, description, examples).option("--architecture <name>", "which one of an index (default: riscv64, else the first)").addHelpText("after", `\n${sources[0]!.toUpperCase()}${sources.slice(1)}. Files are those of container images: the disk of a box or a machine is a filesystem\nof blocks, which only a guest reads (hv exec); of a box, layers shows its blobs.`);

  command("layers <image> [path]", "the layers, bottom first; with a path: every file below it with its layer, hidden ones too", [
    ["hv image layers registry.example/library/nginx:1", ""],
    ["hv image layers ./image-layout /etc", "what is in /etc, and from where"],
    ["hv image layers debian/13", "of a box: its blobs"],
  ]).action(async (text: string, path: string | undefined, options: ImageOptions) => {
    await withImage(cli, text, async (place) => {
      const manifest = await readImageManifest(place, options.architecture, () => {});
      const view = readManifestView(manifest.bytes, manifest.mediaType);
      if (view.artifactType === BOX_ARTIFACT_TYPE && path === undefined) {
        const blobs = view.blobs.slice(1);
        cli.answer(options, { digest: manifest.digest, layers: blobs }, () => table(["layer", "kind", "size", "digest"], blobs.map(({ mediaType, size, digest }, i) => [String(i), shortType(mediaType), formatBytes(size), digest])));
        return;
      }
      const found = await readImageLayers(place, options.architecture, cli.note.bind(cli));
      if (path === undefined) cli.answer(options, layersJson(found), () => layersText(found));
      else {
        const paths = found.union.paths(path);
        if (paths.length === 0 && !found.union.find(path)) throw new CliError(`${text} has never had ${path} in any layer`);
        const rows = paths.map((each) => ({ path: each, ...fateOf(found, each) }));
        cli.answer(options, rows, () => table(["layer", "", "path", ""], rows.map((row) => [row.layer === undefined ? "-" : String(row.layer), row.sign, shown(row.path), row.note])));
      }
    });
  });

  command("which <path> <image>", "the layer that a file comes from, the layers whose copies it hides, and what hid it", [["hv image which /etc/os-release registry.example/debian:13", ""]]).action(async (path: string, text: string, options: ImageOptions) => {
    await withImage(cli, text, async (place) => {
      const found = await readImageLayers(place, options.architecture, () => {});
      const { path: landed, events } = found.union.history(path);
      const visible = found.union.find(path);
      if (events.length === 0) throw new CliError(`${text} has never had ${path} in any layer`);
      if (!visible) cli.exitCode = 1;
      cli.answer(options, { path: landed, visible: visible ?? null, events }, () =>
        [
          landed === path ? "" : `${shown(path)} is ${shown(landed)} (a link on its way)`,
          visible ? `${shown(landed)}: ${describe(visible)}, from layer ${visible.layer}` : `${shown(landed)} is not in the image any more`,
          ...events.toReversed().map((event) => `  layer ${event.layer}  ${eventText(event, visible)}`),
        ].filter(Boolean).join("\n"),
      );
    });
  });

  command("diff <image> [other]", "what each layer adds (A), changes (C) and deletes (D); or what differs between two images", [
    ["hv image diff registry.example/web:2", "layer by layer, as docker diff"],
    ["hv image diff registry.example/web:1 registry.example/web:2", "from the first to the second"],
  ]).action(async (text: string, other: string | undefined, options: ImageOptions) => {
    const found = await withImage(cli, text, (place) => readImageLayers(place, options.architecture, () => {}));
    if (other === undefined) {
      const rows = found.layers.map((_, layer) => ({ layer, changes: layerChanges(found, layer) }));
      return cli.answer(options, rows, () => rows.map(({ layer, changes }) => [`layer ${layer}`, ...changes.map(({ change, path }) => `${change} ${shown(path)}`)].join("\n")).join("\n"));
    }
    const second = await withImage(cli, other, (place) => readImageLayers(place, options.architecture, () => {}));
    const differences = compareUnions(found.union, second.union);
    if (differences.length > 0) cli.exitCode = 1;
    cli.answer(options, differences, () => (differences.length === 0 ? "no difference" : differences.map(({ change, path, what }) => `${change} ${shown(path)}${what.length > 0 ? `  (${what.map(shown).join(", ")})` : ""}`).join("\n")));
  });
}

async function withImage<T>(cli: Cli, text: string, run: (place: ImagePlace) => Promise<T>): Promise<T> {
  const { images } = await cli.stacks.any();
  const place = await openImage(images, text);
  try {
    return await run(place);
  } finally {
    await place.close();
  }
}

function layersJson({ manifest, union, layers }: ImageLayers): object {
  const summaries = union.layers();
  return { digest: manifest.digest, layers: layers.map(({ descriptor, createdBy }, i) => ({ layer: i, digest: descriptor.digest, mediaType: descriptor.mediaType, size: descriptor.size, createdBy, ...summaries[i] })), problems: union.problems };
}

function layersText({ union, layers }: ImageLayers): string {
  const summaries = union.layers();
  const rows = layers.map(({ descriptor, createdBy }, i) => {
    const s = summaries[i]!;
    return [String(i), descriptor.digest.slice(7, 19), formatBytes(descriptor.size), s.added, s.changed, s.removed, s.whiteouts + s.opaque, `${s.visible} (${formatBytes(s.visibleBytes)})`, shown(createdBy).slice(0, 50)];
  });
  const text = table(["layer", "digest", "size", "added", "changed", "removed", "whiteouts", "visible", "made by"], rows);
  if (union.problemCount === 0) return text;
  const shownProblems = union.problems.slice(0, 20).map(({ layer, entry, level, why }) => `  ${level === "refused" ? "REFUSED" : "warning"}  layer ${layer}  ${entry}: ${why}`);
  const more = union.problemCount > 20 ? [`  … and ${union.problemCount - 20} more (--json has up to 1000)`] : [];
  return [text, "", "Unpack with care:", ...shownProblems, ...more].join("\n");
}

/** How a path ended up: the layer that shows it, and what is hidden. */
function fateOf({ union }: ImageLayers, path: string): { layer: number | undefined; sign: string; note: string } {
  const visible = union.find(path);
  const { events } = union.history(path);
  const hidden = events.filter((event) => event.what === "put" && event.layer !== visible?.layer).map(({ layer }) => layer);
  if (!visible) {
    const last = events.at(-1)!;
    return { layer: undefined, sign: "D", note: `${last.what} in layer ${last.layer}; was in ${hidden.join(", ")}` };
  }
  const link = visible.kind === "symlink" ? `→ ${shown(visible.target)} ` : visible.linkTo ? `= ${shown(visible.linkTo)} ` : "";
  return { layer: visible.layer, sign: visible.kind === "directory" ? "d" : "", note: `${link}${hidden.length > 0 && visible.kind !== "directory" ? `hides layer ${hidden.join(", ")}` : ""}` };
}

function layerChanges({ union }: ImageLayers, layer: number): { change: "A" | "C" | "D"; path: string }[] {
  const changes: { change: "A" | "C" | "D"; path: string }[] = [];
  for (const path of union.paths()) {
    const { events } = union.history(path);
    const here = events.filter((event) => event.layer === layer);
    if (here.length === 0) continue;
    const before = events.filter((event) => event.layer < layer).at(-1);
    const was = before?.what === "put";
    const is = here.at(-1)!.what === "put";
    if (is) changes.push({ change: was ? "C" : "A", path });
    else if (was) changes.push({ change: "D", path });
  }
  return changes;
}

function describe(file: UnionFile): string {
  const owner = `${file.uid}:${file.gid} ${file.mode.toString(8).padStart(4, "0")}`;
  if (file.kind === "symlink") return `a symbolic link to ${shown(file.target)}`;
  if (file.kind === "file") return `${file.linkTo ? `another name of ${shown(file.linkTo)}` : "a file"} of ${formatBytes(file.size)}, ${owner}`;
  if (file.kind === "directory" || file.kind === "fifo") return `a ${file.kind}, ${owner}`;
  return `a ${file.kind} ${file.device.major}:${file.device.minor}, ${owner}`;
}

function eventText(event: UnionEvent, visible: UnionFile | undefined): string {
  switch (event.what) {
    case "put":
      return `${describe(event.file)}${visible?.layer === event.layer ? "  ← this one" : "  (hidden)"}`;
    case "whiteout":
      return `deleted by a whiteout in ${shown(event.by)}`;
    case "opaque":
      return `hidden: ${shown(event.by)} is opaque`;
    case "covered":
      return `covered: ${shown(event.by)} became something else`;
  }
}
