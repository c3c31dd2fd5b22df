import { createProjectGraphAsync } from "@nx/devkit";
import { checkFiles, checkLayers, formatViolation, type Edge } from "./check.ts";
import { readProjects } from "./projects.ts";

const root = new URL("../../..", import.meta.url).pathname.replace(/\/$/, "");
const { files, violations } = checkFiles(root);
const graph = await createProjectGraphAsync({ exitOnError: true, resetDaemonClient: false });
const edges: Edge[] = Object.values(graph.dependencies).flatMap((list) => list.map(({ source, target }) => ({ from: source, to: target })));
violations.push(...checkLayers(readProjects(root), edges));
for (const violation of violations) console.error(formatViolation(violation));
console.log(`arch-check: ${files} files, ${edges.length} project dependencies, ${violations.length} violations`);
process.exit(violations.length > 0 ? 1 : 0);
