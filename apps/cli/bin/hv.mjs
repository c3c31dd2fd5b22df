#!/usr/bin/env node
// Plain JavaScript for whatever Node (20 or newer) the user has: brings the repository's own Node 26 into place, then
// runs the real program on it.
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const node = `${root}node_modules/.bin/node`;
const main = fileURLToPath(new URL("../src/main.ts", import.meta.url));

if (!existsSync(node) || !existsSync(`${root}node_modules/commander`)) {
  const installed = spawnSync(process.execPath, [`${root}tools/bootstrap.mjs`], { cwd: root, stdio: ["inherit", 2, 2] });
  if (installed.status !== 0) {
    console.error("hv: installing the dependencies failed; run `npm ci` in the repository and look at its output");
    process.exit(1);
  }
}
// Compiled code is kept beside the dependencies: the second start of a program takes half the time, the stack's too.
const env = { NODE_COMPILE_CACHE: `${root}node_modules/.cache/compiled`, ...process.env };
const child = spawn(node, [main, ...process.argv.slice(2)], { stdio: "inherit", env });
// The child shares the terminal and gets its signals itself; this process only waits for it.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.on("error", (error) => {
  console.error(`hv: cannot run ${node}: ${error.message}; run \`npm ci\` in the repository`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  if (signal) process.exit(128 + 15);
  process.exit(code ?? 1);
});
