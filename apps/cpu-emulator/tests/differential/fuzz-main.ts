// `npm run fuzz -- --minutes N`: random programs on every engine and QEMU for as long as one likes. Failures, shrunk, are
// written to a directory in the corpus's format.
import { parseArgs } from "node:util";
import { fuzz } from "./fuzz.ts";

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "10" }, seed: { type: "string" }, out: { type: "string", default: "/tmp/polyvisor-fuzz" }, help: { type: "boolean" } },
});
const minutes = Number(values.minutes);
if (values.help || !(minutes > 0)) {
  console.log("npm run fuzz -- [--minutes N] [--seed N] [--out DIRECTORY]\n  POLYVISOR_QEMU names another qemu-system-riscv64");
  process.exit(values.help ? 0 : 2);
}
const firstSeed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
console.log(`seed ${firstSeed}, ${minutes} minutes`);
const result = await fuzz({ seconds: minutes * 60, firstSeed, directory: values.out, note: (line) => console.log(line) });
console.log(`${result.programs} programs in ${result.seconds.toFixed(0)} s, ${(result.programs / result.seconds).toFixed(0)}/s`);
for (const failure of result.failures) console.log(`\n${failure}`);
console.log(result.failures.length === 0 ? "no differences" : `\n${result.failures.length} differences, in ${values.out}`);
process.exit(result.failures.length === 0 ? 0 : 1);
