// What `npm test` runs: every check, then unit specs, then end-to-end specs; the last line is the sum of their tests.
// `npm test -- --unit` leaves the end-to-end part out, `--only STEP` runs one step.
import { spawn } from "node:child_process";
import { accessSync, constants, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { parseArgs } from "node:util";

const root = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const { values: flags } = parseArgs({ options: { unit: { type: "boolean" }, only: { type: "string" }, "no-install": { type: "boolean" } } });
const scratch = mkdtempSync(join(tmpdir(), "pv-test-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

/** Every command runs on Node 26 and the locked tools. */
const env: NodeJS.ProcessEnv = { ...process.env, PATH: `${root}/node_modules/.bin${delimiter}${process.env["PATH"]}`, NX_DAEMON: "false", FORCE_COLOR: "0" };
delete env["NODE_OPTIONS"];

interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}
const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
const summary: string[] = [];

function run(command: string, args: readonly string[], options: { quiet?: boolean; env?: NodeJS.ProcessEnv } = {}): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, env: { ...env, ...options.env }, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    const take = (chunk: Buffer) => {
      output += chunk;
      if (!options.quiet) process.stdout.write(chunk);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("error", (error) => resolve({ code: 127, output: `${command}: ${error.message}` }));
    child.once("close", (code) => resolve({ code: code ?? 1, output }));
  });
}

/** One named step with its time. Failing counts as one failed test, and the others still run. */
async function step(name: string, body: () => Promise<{ ok: boolean; output?: string; note?: string }>): Promise<boolean> {
  if (flags.only && !name.startsWith(flags.only)) return true;
  const start = Date.now();
  const { ok, output, note } = await body();
  if (!ok) {
    totals.failed++;
    if (output) console.log(output.trimEnd());
  }
  const line = `${ok ? "ok    " : "FAILED"} ${name.padEnd(22)} ${((Date.now() - start) / 1000).toFixed(1).padStart(6)} s${note ? `  ${note}` : ""}`;
  console.log(line);
  summary.push(line);
  return ok;
}

const command = (name: string, program: string, ...args: string[]) =>
  step(name, async () => {
    const { code, output } = await run(program, args, { quiet: true });
    return { ok: code === 0, output };
  });

/** Generates into a scratch directory and compares with what is committed, so that it works without git too. */
async function generatedCodeIsUpToDate(): Promise<{ ok: boolean; output?: string }> {
  const generate = await run("node", [join(root, "tools/generate-proto.ts"), scratch], { quiet: true });
  const image = join(scratch, "descriptors.binpb");
  const build = await run("buf", ["build", "--as-file-descriptor-set", "--exclude-source-info", "-o", image], { quiet: true });
  if (generate.code !== 0 || build.code !== 0) return { ok: false, output: generate.output + build.output };
  const stale = differences(join(scratch, "libs/contracts/src/gen"), join(root, "libs/contracts/src/gen"));
  if (!readFileSync(image).equals(readFileSync(join(root, "libs/contracts/descriptors.binpb")))) stale.push("libs/contracts/descriptors.binpb");
  return stale.length === 0 ? { ok: true } : { ok: false, output: `not up to date; run "npm run proto" and commit:\n${stale.map((path) => `  ${path}`).join("\n")}` };
}

function differences(fresh: string, committed: string): string[] {
  const list = (directory: string) => (existsSync(directory) ? readdirSync(directory, { recursive: true, withFileTypes: true }) : []);
  const files = (directory: string) => new Set(list(directory).filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1)));
  const wanted = files(fresh);
  const found = files(committed);
  return [...wanted.union(found)].filter(
    (path) => !wanted.has(path) || !found.has(path) || !readFileSync(join(fresh, path)).equals(readFileSync(join(committed, path))),
  );
}

/** Programs that some tests compare with or need; those tests say so and are skipped where one is absent. */
const TOOLS: readonly { program: string; debian: string; for: string }[] = [
  { program: "qemu-system-riscv64", debian: "qemu-system-misc", for: "comparing instructions with QEMU" },
  { program: "nats-server", debian: "nats-server", for: "events and the processes topology" },
  { program: "riscv64-linux-gnu-as", debian: "binutils-riscv64-linux-gnu", for: "comparing the assembler with GNU's" },
  { program: "dtc", debian: "device-tree-compiler", for: "checking the device tree" },
  { program: "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.bin", debian: "opensbi", for: "booting with an M-mode firmware" },
  { program: "docker-registry", debian: "docker-registry", for: "our OCI client and conformance suite against another registry" },
  { program: "dockerd", debian: "docker.io", for: "Docker Engine against our registry" },
  { program: "buildah", debian: "buildah", for: "buildah against our registry" },
  { program: "podman", debian: "podman", for: "podman against our registry" },
  { program: "skopeo", debian: "skopeo", for: "a real client against our registry" },
  { program: "modprobe", debian: "kmod", for: "judging the module tables of boxes" },
  { program: "gdb-multiarch", debian: "gdb-multiarch", for: "debugging a guest with GDB" },
  { program: "qemu-img", debian: "qemu-utils", for: "checking exported disks, making disks to import" },
  { program: "dnsmasq", debian: "dnsmasq-base", for: "a DHCP server on a bridged network" },
  { program: "tshark", debian: "tshark", for: "reading our captures" },
  { program: "ip", debian: "iproute2", for: "bridges and namespaces" },
  { program: "ping", debian: "iputils-ping", for: "ICMP through the NAT" },
  { program: "traceroute", debian: "traceroute", for: "the hops behind the NAT" },
  { program: "iperf3", debian: "iperf3", for: "iperf3 through the NAT" },
  { program: "nmap", debian: "nmap", for: "scanning ports through the NAT" },
  { program: "hping3", debian: "hping3", for: "odd packets at the NAT" },
  { program: "dig", debian: "bind9-dnsutils", for: "asking the fabric's DNS" },
  { program: "tcpdump", debian: "tcpdump", for: "TCP options as a Linux kernel sees them" },
  { program: "mkfs.ext4", debian: "e2fsprogs", for: "the guest's disk" },
];

function onPath(program: string): boolean {
  if (program.startsWith("/")) return existsSync(program);
  return [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"].some((directory) => {
    try {
      accessSync(join(directory || ".", program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

async function installTools(): Promise<{ ok: boolean; note: string }> {
  const absent = () => TOOLS.filter(({ program }) => !onPath(program));
  if (absent().length === 0) return { ok: true, note: "all there" };
  const mayInstall = process.getuid?.() === 0 && existsSync("/etc/debian_version") && onPath("apt-get") && !flags["no-install"];
  if (mayInstall) {
    const apt = (...args: string[]) => run("apt-get", args, { quiet: true, env: { DEBIAN_FRONTEND: "noninteractive" } });
    const packages = absent().map(({ debian }) => debian);
    const install = () => apt("install", "-y", "-q", "--no-install-recommends", ...packages);
    if ((await install()).code !== 0) {
      await apt("update", "-q");
      // One package that the mirror lacks must not keep the others away.
      if ((await install()).code !== 0) for (const name of packages) await apt("install", "-y", "-q", "--no-install-recommends", name);
    }
  }
  const missing = absent();
  if (missing.length === 0) return { ok: true, note: "installed" };
  const list = missing.map(({ program, for: purpose }) => `${program} (${purpose})`).join(", ");
  return { ok: true, note: `tests are left out for want of ${list}; on Debian: apt-get install ${missing.map(({ debian }) => debian).join(" ")}` };
}

/** `later`: what it prints comes when it has ended, whole, so that lanes side by side do not mix. */
async function vitest(project: string, later = false): Promise<{ ok: boolean; output?: string; note?: string }> {
  const report = join(scratch, `${project}.json`);
  const args = ["run", "--project", project, "--reporter=default", "--reporter=json", `--outputFile.json=${report}`, "--passWithNoTests"];
  const { code, output } = await run("vitest", args, { quiet: later });
  if (later) process.stdout.write(output);
  if (!existsSync(report)) return { ok: code === 0, note: code === 0 ? "no tests" : "vitest ended without a report" };
  const result = JSON.parse(readFileSync(report, "utf8")) as Record<"numPassedTests" | "numFailedTests" | "numPendingTests" | "numTodoTests", number>;
  const passed = result.numPassedTests;
  const failed = result.numFailedTests;
  const skipped = result.numPendingTests + result.numTodoTests;
  totals.passed += passed;
  totals.skipped += skipped;
  // The step itself counts for one failure; a file that does not load or an unhandled error has no failed test.
  totals.failed += Math.max(0, failed - 1);
  return { ok: code === 0 && failed === 0, note: `${passed} passed, ${failed} failed, ${skipped} skipped` };
}

console.log(`node ${process.version}, ${process.platform}-${process.arch}`);
await command("types", "tsc", "-b");
await command("lint", "oxlint", "--quiet");
await command("architecture", "node", "tools/arch-check/src/main.ts");
await command("proto lint", "buf", "lint");
await command("proto breaking", "buf", "breaking", "--against", "proto/baseline.binpb");
await step("proto generated", generatedCodeIsUpToDate);
if (!flags.unit) await step("tools", installTools);
if (flags.unit) await step("unit", () => vitest("unit"));
else {
  // Two lanes, on machines with few cores too: much of an end-to-end test is waiting.
  const besides = async () => {
    for (const project of ["unit", "peers", "fuzz"]) await step(project, () => vitest(project, true));
  };
  await Promise.all([step("e2e", () => vitest("e2e")), besides()]);
}

console.log(`\n${summary.join("\n")}\n`);
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exit(totals.failed > 0 ? 1 : 0);
