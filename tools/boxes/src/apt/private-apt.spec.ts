import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PrivateApt } from "./private-apt.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "pv-apt-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** An apt-get whose mirror has the given state: by suite, the codename in its Release file, or what apt says of it. */
function apt(mirror: Record<string, { codename: string } | { error: string }>): PrivateApt {
  const bin = join(dir, "bin");
  mkdirSync(bin);
  const cases = Object.entries(mirror).map(([suite, state]) =>
    "error" in state
      ? `${suite}) echo "E: ${state.error}" >&2; exit 100 ;;`
      : `${suite}) printf 'Suite: ${suite}\\nCodename: ${state.codename}\\n' > "${dir}/apt/lists/mirror.example_debian_dists_${suite}_InRelease" ;;`,
  );
  writeFileSync(join(bin, "apt-get"), `#!/bin/sh\nset -- $(cat "${dir}/apt/sources.list")\ncase "$4" in\n${cases.join("\n")}\n*) echo "E: no suite $4" >&2; exit 100 ;;\nesac\n`);
  chmodSync(join(bin, "apt-get"), 0o755);
  return new PrivateApt({
    dir: join(dir, "apt"), suite: "trixie", architecture: "riscv64",
    mirror: { uri: "http://mirror.example/debian", signedBy: undefined, namedBy: "a test" },
    env: { ...process.env, PATH: `${bin}:${process.env["PATH"]}` },
  });
}
const SYNCING = { error: "Failed to fetch Packages.xz  File has unexpected size (1 != 2). Mirror sync in progress?" };
const sources = () => readFileSync(join(dir, "apt/sources.list"), "utf8").split(" ")[3];

describe("package lists", () => {
  it("of the suite, when the mirror is whole", async () => {
    await apt({ trixie: { codename: "trixie" }, stable: SYNCING }).update();
    expect(sources()).toBe("trixie");
  });
  it("lists that do not fit the Release file → the suite's other name, if it is the same release", async () => {
    await apt({ trixie: SYNCING, stable: { codename: "trixie" } }).update();
    expect(sources()).toBe("stable");
    rmSync(join(dir, "bin"), { recursive: true });
    await apt({ trixie: SYNCING, stable: { codename: "forky" }, oldstable: { codename: "trixie" } }).update();
    expect(sources()).toBe("oldstable");
  });
  it("no name fits → the first error, whole", async () => {
    await expect(apt({ trixie: SYNCING, stable: { codename: "forky" }, oldstable: SYNCING, testing: SYNCING }).update()).rejects.toThrow(/Mirror sync in progress/);
  });
  it("any other error is told at once", async () => {
    await expect(apt({ trixie: { error: "Could not resolve 'mirror.example'" }, stable: { codename: "trixie" } }).update()).rejects.toThrow(/Could not resolve/);
  });
});
