import { existsSync, globSync, readFileSync } from "node:fs";

export interface Project {
  /** Package name, e.g. "@polyvisor/isa". */
  readonly name: string;
  /** Relative to the repository, e.g. "libs/isa". */
  readonly root: string;
  /** From its "type:…" tag: pure | contract | lib | app | tool. */
  readonly type: string;
  readonly dependencies: ReadonlySet<string>;
}

/** The workspaces under `root`, by package name. */
export function readProjects(root: string): Map<string, Project> {
  const projects = new Map<string, Project>();
  for (const path of globSync("{apps,libs,tools}/*/package.json", { cwd: root })) {
    const manifest = JSON.parse(readFileSync(`${root}/${path}`, "utf8"));
    const tag = (manifest.nx?.tags as string[] | undefined)?.find((name) => name.startsWith("type:"));
    projects.set(manifest.name, {
      name: manifest.name,
      root: path.replaceAll("\\", "/").replace("/package.json", ""),
      type: tag?.slice("type:".length) ?? "untagged",
      dependencies: new Set(Object.keys({ ...manifest.dependencies, ...manifest.devDependencies })),
    });
  }
  return projects;
}

export function sourceFilesOf(root: string, project: Project): string[] {
  return globSync(`${project.root}/**/*.{ts,mts}`, { cwd: root, exclude: ["**/node_modules/**", "**/out-tsc/**", "**/dist/**", "**/fixtures/**"] })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => existsSync(`${root}/${path}`));
}
