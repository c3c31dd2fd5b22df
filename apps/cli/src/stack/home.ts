import { createHash } from "node:crypto";
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";

export type Topology = "embedded" | "processes";
export const TOPOLOGIES: readonly Topology[] = ["embedded", "processes"];

/** sun_path holds 108 bytes with its NUL on Linux (unix(7)), 104 on macOS. */
const MAX_SOCKET_PATH = 103;
/** The longest name that any topology puts into its run directory. */
const LONGEST_SOCKET_NAME = "memory-manager.sock".length;

/** Where everything of one user lives: $HV_HOME, else ~/.polyvisor. */
export interface Home {
  readonly root: string;
  /** Blobs, boxes and disks; shared by the stacks of all topologies. */
  readonly registry: string;
  /** Downloaded packages and built boxes. */
  readonly cache: string;
  /** The secret that seals static translations (cpu-emulator). */
  readonly translationKey: string;
}

/** The files of one stack. */
export interface StackPaths {
  readonly topology: Topology;
  readonly root: string;
  /** Held by the daemon: its pid. */
  readonly lock: string;
  /** Written by the daemon when it serves: {@link StackInfo}. */
  readonly info: string;
  readonly state: string;
  readonly log: string;
  /** Unix sockets; elsewhere when the path would be too long for one. */
  readonly run: string;
}

export function homeOf(env: NodeJS.ProcessEnv = process.env): Home {
  const root = resolve(env["HV_HOME"] || join(homedir(), ".polyvisor"));
  return { root, registry: join(root, "registry"), cache: join(root, "cache"), translationKey: join(root, "translation.key") };
}

export function stackPaths(home: Home, topology: Topology): StackPaths {
  const root = join(home.root, "stacks", topology);
  const run = join(root, "run");
  const tooLong = Buffer.byteLength(run) + 1 + LONGEST_SOCKET_NAME > MAX_SOCKET_PATH;
  return {
    topology,
    root,
    lock: join(root, "daemon.lock"),
    info: join(root, "daemon.json"),
    state: join(root, "state"),
    log: join(root, "logs", "daemon.log"),
    run: tooLong ? join(tmpdir(), `hv-${createHash("sha256").update(run).digest("hex").slice(0, 12)}`) : run,
  };
}
