import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { fusedArithmetic } from "../core/interpreter/engine.ts";

/** All that decides what a region is translated to, and where the translation finds a hart's state. */
const SOURCES = [new URL("../core/", import.meta.url), new URL(".", import.meta.resolve("@polyvisor/isa")), new URL(".", import.meta.resolve("@polyvisor/wasm-encoder"))];

let version: string | undefined;
/** Digest of the translator: its sources, this machine's arithmetic, V8. Found out, so that nobody has to remember to change it. */
export function translatorVersion(): string {
  if (version !== undefined) return version;
  const hash = createHash("sha256");
  hash.update(JSON.stringify([process.versions.v8, process.arch, fusedArithmetic()]));
  for (const source of SOURCES.map((url) => fileURLToPath(url))) {
    for (const path of readdirSync(source, { recursive: true, encoding: "utf8" }).filter((name) => /(?<!\.spec)\.[jt]s$/.test(name)).toSorted()) {
      hash.update(`\0${relative(source, join(source, path))}\0`).update(readFileSync(join(source, path)));
    }
  }
  return (version = hash.digest("hex"));
}
