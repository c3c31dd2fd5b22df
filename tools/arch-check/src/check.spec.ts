import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { checkFiles, checkLayers, formatViolation } from "./check.ts";
import { readProjects } from "./projects.ts";
import { scanSource } from "./source-file.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "pv-arch-"));
  project("apps/cpu", "app", ["contracts", "isa"]);
  project("apps/bus", "app", ["contracts"]);
  project("apps/cli", "composition", ["cpu", "bus"]);
  project("libs/contracts", "contract");
  project("libs/conformance", "lib", ["contracts"]);
  project("libs/isa", "pure", ["wire"]);
  project("libs/wire", "pure");
});
afterEach(() => rmSync(root, { recursive: true }));

function project(path: string, type: string, dependencies: string[] = []): void {
  const name = path.split("/")[1]!;
  const entries = Object.fromEntries(dependencies.map((dependency) => [`@polyvisor/${dependency}`, "0.1.0"]));
  file(`${path}/package.json`, JSON.stringify({ name: `@polyvisor/${name}`, dependencies: entries, nx: { tags: [`type:${type}`] } }));
}
function file(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}
/** What the check says about one file in an otherwise clean repository. */
function check(path: string, text: string): string[] {
  file(path, text);
  return checkFiles(root).violations.map((violation) => `${violation.path}:${violation.line}: ${violation.what}`);
}

describe("arch-check", () => {
  it("has nothing to say about a clean repository", () => {
    expect(check("apps/cpu/src/core/hart.ts", 'import { decode } from "@polyvisor/isa";\nimport "./x.ts";\nexport const x = decode;')).toEqual([]);
  });

  it.each([
    ["an app imports an app", "apps/cpu/src/index.ts", 'import { bus } from "@polyvisor/bus";', "imports the app @polyvisor/bus"],
    ["an app imports the composition root", "apps/cpu/src/index.ts", 'import "@polyvisor/cli";', "imports the app @polyvisor/cli"],
    ["an app reaches into another by path", "apps/cpu/src/index.ts", 'export * from "../../bus/src/index.ts";', "outside apps/cpu"],
    ["a pure lib uses a Node module", "libs/isa/src/index.ts", 'import { readFileSync } from "node:fs";', "imports node:fs"],
    ["a pure lib uses an npm package", "libs/isa/src/index.ts", 'import pino from "pino";', "imports pino"],
    ["a pure lib uses a lib that is not pure", "libs/isa/src/index.ts", 'import type { Port } from "@polyvisor/contracts";', "not a pure lib"],
    ["generated code is used outside libs/contracts", "apps/bus/src/index.ts", 'import "@polyvisor/contracts/src/gen/x.ts";', "generated code"],
    ["gRPC is used in an app", "apps/bus/src/adapters/x.ts", 'import { status } from "@grpc/grpc-js";', "imports @grpc/grpc-js"],
    ["a core imports a Node module", "apps/bus/src/core/x.ts", 'const fs = await import("node:fs");', "imports node:fs in a core"],
    ["a core imports its adapters", "apps/bus/src/core/x.ts", 'import "../adapters/tap.ts";', "imports ../adapters/tap.ts in a core"],
    ["a core reads the clock", "apps/bus/src/core/x.ts", "export const now = () => Date.now();", "uses Date in a core"],
    ["a core makes a date of now", "apps/bus/src/core/x.ts", "export const now = () => new Date();", "uses Date in a core"],
    ["a core sets a timer", "apps/bus/src/core/x.ts", "setTimeout(() => {}, 5);", "uses setTimeout in a core"],
    ["a core reads the environment", "apps/bus/src/core/x.ts", "export const home = process.env.HOME;", "uses process in a core"],
    ["a conformance suite uses a library", "libs/conformance/src/suites/x.ts", 'import fc from "fast-check";', "imports fast-check in a conformance suite"],
    ["an import is not declared", "apps/bus/src/index.ts", 'import "@polyvisor/isa";', "apps/bus/package.json does not list"],
  ])("%s → a violation", (_name, path, text, what) => {
    expect(check(path, text)).toEqual(expect.arrayContaining([expect.stringContaining(what)]));
  });

  it.each([
    ["the composition root imports apps", "apps/cli/src/index.ts", 'import "@polyvisor/cpu"; import "@polyvisor/bus";'],
    ["a spec of a pure lib uses packages", "libs/isa/src/x.spec.ts", 'import { it } from "vitest"; import "node:fs";'],
    ["a pure lib imports a pure lib", "libs/isa/src/index.ts", 'import "@polyvisor/wire";'],
    ["an adapter uses Node and the clock", "apps/bus/src/adapters/x.ts", 'import "node:fs"; export const now = Date.now();'],
    ["names of members and locals that look like globals", "apps/bus/src/core/x.ts", "export const f = (process: any) => process.performance.Date; export const o = { setTimeout: 1 };"],
    ["a core writes a given time as text", "apps/bus/src/core/x.ts", "export const iso = (ms: number) => new Date(ms).toISOString();"],
    ["comments and strings", "apps/bus/src/core/x.ts", '// Date.now() from "node:fs"\nexport const text = "import process from node:fs";'],
    ["a suite that uses the contract and node:assert", "libs/conformance/src/suites/x.ts", 'import "@polyvisor/contracts"; import "node:assert/strict";'],
  ])("%s → fine", (_name, path, text) => {
    expect(check(path, text)).toEqual([]);
  });

  it("names file, line and reason", () => {
    file("libs/isa/src/x.ts", '\n\nimport "node:os";');
    expect(formatViolation(checkFiles(root).violations[0]!)).toBe(
      "libs/isa/src/x.ts:3: imports node:os, which is not a pure lib\n    because they run in a browser and are read by newcomers: nothing but each other (architecture, section 8)",
    );
  });

  it("refuses project dependencies against the layers", () => {
    const name = (project: string) => `@polyvisor/${project}`;
    const edges = [
      { from: name("cpu"), to: name("bus") },
      { from: name("isa"), to: name("contracts") },
      { from: name("contracts"), to: name("conformance") },
      { from: name("cli"), to: name("cpu") },
      { from: name("cpu"), to: name("isa") },
    ];
    expect(checkLayers(readProjects(root), edges).map(({ what }) => what)).toEqual([
      "app @polyvisor/cpu depends on app @polyvisor/bus",
      "pure @polyvisor/isa depends on contract @polyvisor/contracts",
      "contract @polyvisor/contracts depends on lib @polyvisor/conformance",
    ]);
  });

  it("refuses a project without a type", () => {
    project("libs/new", "misc");
    expect(checkFiles(root).violations[0]).toMatchObject({ path: "libs/new/package.json", what: "has no known type tag (misc)" });
  });
});

describe("scanSource", () => {
  it("finds static, re-exported, dynamic and type imports with their lines", () => {
    const { imports } = scanSource("x.ts", 'import a from "a";\nexport * from "b";\nconst c = import("c");\ntype D = import("d").D;');
    expect(imports).toEqual([
      { specifier: "a", line: 1 },
      { specifier: "b", line: 2 },
      { specifier: "c", line: 3 },
      { specifier: "d", line: 4 },
    ]);
  });
});
