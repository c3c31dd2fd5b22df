import { join } from "node:path";
import { findDebianMirror, type DebianMirror } from "../apt/debian-mirror.ts";
import { PrivateApt, type AptPackage } from "../apt/private-apt.ts";
import { BoxBuildError, type BuildOptions } from "../built-box.ts";

export const SUITE = "trixie";
export const DEBIAN_VERSION = "13";
export const ARCHITECTURE = "riscv64";

/** Debian's packages for the guest, with today's lists, and what a recipe needs around them. */
export interface DebianArchive {
  readonly apt: PrivateApt;
  readonly mirror: DebianMirror;
  /** The package that holds the current kernel. */
  readonly kernelName: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: NonNullable<BuildOptions["log"]>;
  readonly progress: NonNullable<BuildOptions["onProgress"]>;
  /** Downloads what is not in the cache, with progress. */
  fetch(packages: readonly AptPackage[]): Promise<string[]>;
}

export async function openDebian(options: BuildOptions): Promise<DebianArchive> {
  const env = { ...(options.env ?? process.env) } as NodeJS.ProcessEnv;
  const log = options.log ?? (() => {});
  const progress = options.onProgress ?? (() => {});
  const mirror = findDebianMirror(env);
  log(`packages of ${SUITE}/${ARCHITECTURE} from the mirror in ${mirror.namedBy}`);
  const apt = new PrivateApt({ dir: join(options.cacheDir, "apt", `${SUITE}-${ARCHITECTURE}`), mirror, suite: SUITE, architecture: ARCHITECTURE, env });
  progress({ step: "package lists" });
  await apt.update(log);
  // linux-image-riscv64 is a name for the current kernel: its dependency is the package that holds it.
  const kernelName = (await apt.depends("linux-image-riscv64")).map((d) => d.split(" ")[0] as string).find((d) => d.startsWith("linux-image-"));
  if (!kernelName) throw new BoxBuildError("linux-image-riscv64 depends on no linux-image-<version>: the mirror's lists are not what this recipe expects");
  const fetch = (packages: readonly AptPackage[]): Promise<string[]> => {
    const totalBytes = packages.reduce((sum, p) => sum + p.bytes, 0);
    const step = packages.length === 1 ? `download ${packages[0]?.name}` : `download ${packages.length} packages`;
    progress({ step, doneBytes: 0, totalBytes });
    return apt.fetchAll(packages, (doneBytes) => progress({ step, doneBytes, totalBytes }));
  };
  return { apt, mirror, kernelName, env, log, progress, fetch };
}

/** For the built box's record: package → version and digest. */
export function sourcesOf(packages: readonly AptPackage[]): Record<string, string> {
  return Object.fromEntries(packages.map((p) => [p.name, `${p.version} sha256:${p.sha256}`]));
}
