import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BoxBuildError } from "../built-box.ts";

/** Where Debian packages come from, and the keys that sign them. */
export interface DebianMirror {
  readonly uri: string;
  /** Keyring file, or undefined to use the machine's trusted keys. */
  readonly signedBy: string | undefined;
  /** For messages: which file or variable named it. */
  readonly namedBy: string;
}

interface AptSource {
  readonly uri: string;
  readonly suite: string;
  readonly components: readonly string[];
  readonly signedBy: string | undefined;
  readonly file: string;
}

/** Suites of Debian itself: a third party's list has others ("nodistro", "bookworm-pgdg"). */
const DEBIAN_SUITES = new Set([
  ...["bullseye", "bookworm", "trixie", "forky", "duke", "sid"],
  ...["oldoldstable", "oldstable", "stable", "testing", "unstable"],
]);
const DEBIAN_KEYRINGS = ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/**
 * The mirror of this machine's own apt sources (one-line and deb822 formats, sources.list(5)), or HV_DEBIAN_MIRROR.
 * No host name stands in this code: what the machine's owner configured is what is asked.
 */
export function findDebianMirror(env: Readonly<Record<string, string | undefined>>, etc = "/etc/apt"): DebianMirror {
  const keyring = DEBIAN_KEYRINGS.find((path) => existsSync(path));
  const named = env["HV_DEBIAN_MIRROR"];
  if (named) {
    if (!/^(https?|file|mirror|ftp):/.test(named)) {
      throw new BoxBuildError(`HV_DEBIAN_MIRROR is "${named}"; expected the URI of a Debian mirror (http:, https: or file:)`);
    }
    return { uri: named, signedBy: keyring, namedBy: "HV_DEBIAN_MIRROR" };
  }
  const source = readSources(etc).find((s) => DEBIAN_SUITES.has(s.suite) && s.components.includes("main") && /debian/i.test(s.uri + (s.signedBy ?? "")));
  if (!source) {
    throw new BoxBuildError(
      `no Debian mirror found in ${etc}: set HV_DEBIAN_MIRROR to the URI of one (http:, https: or file:), ` +
        "or HV_BOX_CACHE to a cache directory in which the box was built on another machine",
    );
  }
  return { uri: source.uri, signedBy: source.signedBy ?? keyring, namedBy: source.file };
}

export function readSources(etc: string): AptSource[] {
  const folder = join(etc, "sources.list.d");
  const files = [join(etc, "sources.list"), ...(existsSync(folder) ? readdirSync(folder).sort().map((f) => join(folder, f)) : [])];
  return files.filter((f) => existsSync(f) && /\.(list|sources)$/.test(f)).flatMap((file) => {
    const text = readFileSync(file, "utf8");
    return file.endsWith(".sources") ? deb822(text, file) : oneLine(text, file);
  });
}

function oneLine(text: string, file: string): AptSource[] {
  return text.split("\n").flatMap((line) => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    if (!match) return [];
    const [, options = "", uri = "", suite = "", rest = ""] = match;
    const signedBy = /(?:^|\s)signed-by=(\S+)/.exec(options)?.[1];
    return [{ uri, suite, components: rest.split(/\s+/).filter(Boolean), signedBy, file }];
  });
}

function deb822(text: string, file: string): AptSource[] {
  const withoutComments = text.split("\n").filter((line) => !line.startsWith("#")).join("\n");
  return withoutComments.split(/\n\s*\n/).flatMap((stanza) => {
    const fields = new Map<string, string>();
    for (const match of stanza.matchAll(/^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)/gm)) {
      fields.set((match[1] as string).toLowerCase(), (match[2] as string).trim());
    }
    const words = (field: string): string[] => (fields.get(field) ?? "").split(/\s+/).filter(Boolean);
    if (!words("types").includes("deb") || fields.get("enabled")?.toLowerCase() === "no") return [];
    // Signed-By may hold a key itself instead of a file's name; then the machine's Debian keyring is used.
    const signedBy = words("signed-by").length === 1 && words("signed-by")[0]?.startsWith("/") ? words("signed-by")[0] : undefined;
    return words("uris").flatMap((uri) => words("suites").map((suite) => ({ uri, suite, components: words("components"), signedBy, file })));
  });
}
