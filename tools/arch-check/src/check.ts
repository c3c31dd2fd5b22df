import { FILE_RULES, LAYERS, type Violation } from "./rules.ts";
import { readProjects, sourceFilesOf, type Project } from "./projects.ts";
import { readSourceFile } from "./source-file.ts";

/** Every file of every workspace under `root` against {@link FILE_RULES}. */
export function checkFiles(root: string): { files: number; violations: Violation[] } {
  const projects = readProjects(root);
  const violations: Violation[] = [];
  let files = 0;
  for (const project of projects.values()) {
    if (!(project.type in LAYERS)) {
      violations.push({ path: `${project.root}/package.json`, line: 1, what: `has no known type tag (${project.type})`, why: "the tag says which rules hold for the project" });
    }
    for (const path of sourceFilesOf(root, project)) {
      files++;
      const file = readSourceFile(root, path);
      for (const { why, check } of FILE_RULES) {
        for (const { line, what } of check({ file, project, projects })) violations.push({ path, line, what, why });
      }
    }
  }
  return { files, violations };
}

export interface Edge {
  readonly from: string;
  readonly to: string;
}

/** The edges of the project graph against {@link LAYERS}. */
export function checkLayers(projects: ReadonlyMap<string, Project>, edges: readonly Edge[]): Violation[] {
  const violations: Violation[] = [];
  for (const { from, to } of edges) {
    const source = projects.get(from);
    const target = projects.get(to);
    const layer = source && LAYERS[source.type];
    if (!source || !target || !layer || layer.may.includes(target.type)) continue;
    violations.push({ path: `${source.root}/package.json`, line: 1, what: `${source.type} ${from} depends on ${target.type} ${to}`, why: layer.why });
  }
  return violations;
}

export function formatViolation({ path, line, what, why }: Violation): string {
  return `${path}:${line}: ${what}\n    because ${why}`;
}
