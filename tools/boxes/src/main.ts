/** Builds a box without the rest of Polyvisor: node tools/boxes/src/main.ts NAME CACHE_DIR */
import { buildBox } from "./build-box.ts";

const [name = "debian/minimal", cacheDir] = process.argv.slice(2);
if (!cacheDir) {
  console.error("usage: node tools/boxes/src/main.ts NAME CACHE_DIR");
  process.exit(2);
}
let lastStep = "";
const built = await buildBox(name, {
  cacheDir,
  log: (line) => console.error(line),
  onProgress: ({ step }) => {
    if (step !== lastStep) console.error(`- ${step}`);
    lastStep = step;
  },
});
console.log(JSON.stringify(built, (_key, value) => (typeof value === "bigint" ? Number(value) : value), 2));
