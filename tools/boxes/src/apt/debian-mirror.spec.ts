import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { findDebianMirror } from "./debian-mirror.ts";

const made: string[] = [];
afterEach(() => made.splice(0).forEach((path) => rmSync(path, { recursive: true, force: true })));

function etc(files: Record<string, string>): string {
  const path = mkdtempSync(join(tmpdir(), "pv-etc-"));
  made.push(path);
  mkdirSync(join(path, "sources.list.d"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return path;
}
const DEB822 = `# a comment
Types: deb deb-src
# another
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /keys/debian.gpg
`;

describe("the machine's Debian mirror", () => {
  it("from a deb822 file", () => {
    expect(findDebianMirror({}, etc({ "sources.list.d/debian.sources": DEB822 }))).toMatchObject({ uri: "http://mirror.example/debian", signedBy: "/keys/debian.gpg" });
  });
  it("from one-line entries, options and comments read, other people's lists and other files passed over", () => {
    const path = etc({
      "sources.list": "# deb http://old.example/debian trixie main\ndeb [arch=amd64 signed-by=/k.gpg] http://m.example/debian trixie main # c\n",
      "sources.list.d/other.list": "deb https://third.example/apt nodistro main\ndeb https://third.example/debian trixie-thing main\n",
      "sources.list.d/debian.sources.bak": DEB822,
    });
    expect(findDebianMirror({}, path)).toMatchObject({ uri: "http://m.example/debian", signedBy: "/k.gpg" });
  });
  it("disabled, or none → says what to set", () => {
    const path = etc({ "sources.list.d/debian.sources": `${DEB822}Enabled: no\n`, "sources.list": "deb http://u.example/ubuntu noble main\n" });
    expect(() => findDebianMirror({}, path)).toThrow(/HV_DEBIAN_MIRROR.*HV_BOX_CACHE/);
  });
  it("HV_DEBIAN_MIRROR wins; what is no URI is refused", () => {
    expect(findDebianMirror({ HV_DEBIAN_MIRROR: "file:/srv/debian" }, etc({}))).toMatchObject({ uri: "file:/srv/debian", namedBy: "HV_DEBIAN_MIRROR" });
    expect(() => findDebianMirror({ HV_DEBIAN_MIRROR: "debian" }, etc({}))).toThrow(/expected the URI/);
  });
});
