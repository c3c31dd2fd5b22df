import type { Project } from "./projects.ts";
import type { SourceFile } from "./source-file.ts";

export interface Violation {
  readonly path: string;
  readonly line: number;
  readonly what: string;
  readonly why: string;
}

export interface FileContext {
  readonly file: SourceFile;
  readonly project: Project;
  /** Project by package name. */
  readonly projects: ReadonlyMap<string, Project>;
}

export interface FileRule {
  readonly name: string;
  readonly why: string;
  check(context: FileContext): { line: number; what: string }[];
}

/** "@polyvisor/contracts/grpc" → "@polyvisor/contracts" */
export function packageOf(specifier: string): string {
  return specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
}

/** Specs, benchmarks and their helpers may use what the product may not. */
export function isTest(path: string): boolean {
  return /\.(spec|bench|e2e)\.ts$|\/(testing|tests|fixtures)\//.test(path);
}

const isRelative = (specifier: string) => specifier.startsWith(".");
const isCore = ({ file, project }: FileContext) => project.type === "app" && file.path.startsWith(`${project.root}/src/core/`) && !isTest(file.path);

/** Globals that are time, randomness of the host, or I/O. */
const IMPURE = ["process", "Date", "performance", "setTimeout", "setInterval", "setImmediate", "fetch", "console", "require", "__dirname"];

export const FILE_RULES: readonly FileRule[] = [
  {
    name: "no app imports an app",
    why: "services meet only through contracts, so that each can be swapped; only apps/cli composes them (architecture, section 8)",
    check: ({ file, project, projects }) =>
      file.imports
        .filter(({ specifier }) => ["app", "composition"].includes(projects.get(packageOf(specifier))?.type ?? "") && packageOf(specifier) !== project.name)
        .filter(() => project.type !== "composition" && project.type !== "tool" && !file.path.endsWith(".e2e.ts"))
        .map(({ specifier, line }) => ({ line, what: `imports the app ${specifier}` })),
  },
  {
    name: "relative imports stay in their project",
    why: "the package name is a project's door; a path around it hides the dependency from Nx and from its exports",
    check: ({ file, project }) =>
      file.imports
        .filter(({ specifier }) => isRelative(specifier) && !resolve(file.path, specifier).startsWith(`${project.root}/`))
        .map(({ specifier, line }) => ({ line, what: `imports ${specifier}, outside ${project.root}` })),
  },
  {
    name: "pure libs do no I/O and use no packages",
    why: "they run in a browser and are read by newcomers: nothing but each other (architecture, section 8)",
    check: ({ file, project, projects }) =>
      project.type !== "pure" || isTest(file.path)
        ? []
        : file.imports
            .filter(({ specifier }) => !isRelative(specifier) && projects.get(packageOf(specifier))?.type !== "pure")
            .map(({ specifier, line }) => ({ line, what: `imports ${specifier}, which is not a pure lib` })),
  },
  {
    name: "generated code is imported only by libs/contracts",
    why: "the contract modules are what the rest is written against; the generator may change",
    check: ({ file, project }) =>
      project.root === "libs/contracts"
        ? []
        : file.imports
            .filter(({ specifier }) => /\/gen\//.test(specifier))
            .map(({ specifier, line }) => ({ line, what: `imports generated code ${specifier}` })),
  },
  {
    name: "gRPC stays in the adapters",
    why: "cores and clients speak ports and conditions; status codes and channels are libs/contracts' and service-kit's business",
    check: ({ file, project }) =>
      ["libs/contracts", "libs/service-kit"].includes(project.root) || isTest(file.path)
        ? []
        : file.imports
            .filter(({ specifier }) => /^(@grpc\/|grpc-|@nats-io\/)/.test(specifier))
            .map(({ specifier, line }) => ({ line, what: `imports ${specifier}` })),
  },
  {
    name: "a core imports no I/O",
    why: "a core gets files, sockets, workers and time from its adapters and context, so that it can be tested without them",
    check: (context) =>
      !isCore(context)
        ? []
        : context.file.imports
            .filter(({ specifier }) => specifier.startsWith("node:") || /\/adapters\//.test(specifier) || packageOf(specifier) === "pino")
            .map(({ specifier, line }) => ({ line, what: `imports ${specifier} in a core` })),
  },
  {
    name: "a core has no clock and no process",
    why: "time comes from context.clock and configuration from arguments, so that tests decide both",
    check: (context) =>
      !isCore(context)
        ? []
        : IMPURE.filter((name) => context.file.globals.has(name)).map((name) => ({ line: context.file.globals.get(name)!, what: `uses ${name} in a core` })),
  },
  {
    name: "conformance suites see only the contract",
    why: "they must run against any implementation, in any language, from outside",
    check: ({ file, projects }) =>
      !file.path.startsWith("libs/conformance/src/suites/")
        ? []
        : file.imports
            .filter(({ specifier }) => {
              const name = packageOf(specifier);
              const allowed = isRelative(specifier) || specifier === "node:assert" || specifier.startsWith("node:assert/") || specifier === "node:crypto";
              return !allowed && name !== "@polyvisor/contracts" && projects.get(name)?.type !== "pure";
            })
            .map(({ specifier, line }) => ({ line, what: `imports ${specifier} in a conformance suite` })),
  },
  {
    name: "workspace imports are declared",
    why: "package.json is what Nx and npm see; an undeclared import works by accident of hoisting",
    check: ({ file, project, projects }) =>
      file.imports
        .filter(({ specifier }) => projects.has(packageOf(specifier)) && packageOf(specifier) !== project.name)
        .filter(({ specifier }) => !project.dependencies.has(packageOf(specifier)))
        .map(({ specifier, line }) => ({ line, what: `imports ${specifier}, which ${project.root}/package.json does not list` })),
  },
];

/** Which types of project each may depend on (tags in package.json, edges from the Nx project graph). */
export const LAYERS: Readonly<Record<string, { readonly may: readonly string[]; readonly why: string }>> = {
  pure: { may: ["pure"], why: "pure libs stand at the bottom" },
  contract: { may: ["contract", "pure"], why: "contracts and mediation know no service" },
  lib: { may: ["lib", "contract", "pure"], why: "libs are used by apps, never the reverse" },
  app: { may: ["lib", "contract", "pure"], why: "services meet only through contracts" },
  composition: { may: ["tool", "app", "lib", "contract", "pure"], why: "apps/cli composes the services and is imported by nobody" },
  tool: { may: ["tool", "app", "lib", "contract", "pure"], why: "" },
};

function resolve(from: string, specifier: string): string {
  const parts = from.split("/").slice(0, -1);
  for (const part of specifier.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== ".") parts.push(part);
  }
  return parts.join("/");
}
