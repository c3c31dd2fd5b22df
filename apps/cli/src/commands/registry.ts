import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { UsageError } from "../cli-error.ts";
import { formatBytes } from "../format/quantity.ts";
import { table } from "../format/table.ts";

/** hv registry show|gc. */
export function addRegistryCommands(program: Command, cli: Cli): void {
  const registry = program.command("registry").description("the OCI registry that every stack serves: push and pull with docker, podman, skopeo, oras");

  addCommand(registry, "show", "its URL, repositories and their sizes", [
    ["hv registry show", ""],
    ["skopeo copy --dest-tls-verify=false docker-archive:x.tar docker://$(hv registry show --url)/x:1", "push an image"],
    ["PV_REGISTRY_HTTP=127.0.0.1:5000 hv stack up", "on a port of your choice"],
  ])
    .option("--url", "only host:port, as image names begin")
    .action(async (options: { json?: boolean; url?: boolean }) => {
      const { images } = await cli.stacks.any();
      const about = await images.describeRegistry({});
      const host = about.url.replace(/^https?:\/\//, "");
      if (options.url) return cli.answer(options, { url: about.url, host }, () => host);
      cli.answer(options, about, () =>
        [
          about.url === "" ? "not served over HTTP; start the stack with PV_REGISTRY_HTTP=127.0.0.1:0" : about.url,
          `${formatBytes(about.blobBytes)} of blobs in ${about.storage}${about.uploads > 0n ? `, ${about.uploads} uploads begun` : ""}`,
          ...(about.repositories.length === 0 ? [] : ["", table(["repository", "tags", "size"], about.repositories.map(({ name, tags, bytes }) => [name, String(tags), formatBytes(bytes)]))]),
        ].join("\n"),
      );
    });

  addCommand(registry, "gc", "remove what no tag, box, disk or machine needs", [
    ["hv registry gc --dry-run", "only say what would go"],
    ["hv registry gc --untagged", "old versions of tags that were moved, too"],
    ["hv registry gc --grace 0", "also what came within the last hour: only while nobody pushes"],
  ])
    .option("--untagged", "manifests that no tag, index or subject leads to are garbage, too")
    .option("--grace <minutes>", "keep what is younger (default: 60, uploads that were begun a day)")
    .option("--dry-run", "remove nothing")
    .action(async (options: { json?: boolean; untagged?: boolean; grace?: string; dryRun?: boolean }) => {
      const minutes = options.grace === undefined ? undefined : Number(options.grace);
      if (minutes !== undefined && !(minutes >= 0 && minutes < 1e7)) throw new UsageError(`--grace is "${options.grace}", expected minutes`);
      const { images } = await cli.stacks.any();
      const found = await images.collectGarbage(
        { untagged: options.untagged === true, dryRun: options.dryRun === true, ...(minutes === undefined ? {} : { graceMs: BigInt(Math.round(minutes * 60_000)) }) },
        { timeoutMs: 600_000 },
      );
      const verb = options.dryRun ? "would be removed" : "removed";
      cli.answer(options, found, () => `${found.blobs} blobs (${formatBytes(found.bytes)}), ${found.manifests} manifests and ${found.uploads} uploads ${verb}`);
    });
}
