import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { spawnSync } from "node:child_process";

/** Generates the contracts' TypeScript below `out` (default: this repository): `buf generate`, with our serializer instead of ts-proto's. */
const out = process.argv[2] ?? ".";
const { status } = spawnSync("buf", ["generate", "-o", out], { stdio: "inherit" });
if (status !== 0) process.exit(status ?? 1);

const generated = join(out, "libs/contracts/src/gen");
for (const entry of readdirSync(generated, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const path = join(entry.parentPath, entry.name);
  const text = readFileSync(path, "utf8");
  const serialized = text.replaceAll(/Buffer\.from\((\w+)\.encode\(value\)\.finish\(\)\)/g, "encoded($1, value)");
  if (serialized === text) continue;
  const up = "../".repeat(path.slice(generated.length + 1).split("/").length);
  writeFileSync(path, serialized.replace(/^import /m, `import { encoded } from "${up}encoded.ts";\nimport `));
}
