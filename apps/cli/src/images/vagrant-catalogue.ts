import { CliError } from "../cli-error.ts";

/**
 * Vagrant's box catalogue metadata (developer.hashicorp.com/vagrant/docs/boxes/format, "Box Metadata"), for boxes of our kind: their
 * provider is "polyvisor", and their URL is a reference in an OCI registry, or a file or URL of an OCI image layout in a tar archive.
 */
export interface CatalogueBox {
  readonly name: string;
  readonly description: string;
  /** Newest first. */
  readonly versions: readonly CatalogueVersion[];
}
export interface CatalogueVersion {
  readonly version: string;
  readonly url: string;
  readonly checksum: { readonly type: string; readonly value: string } | undefined;
}

export const PROVIDER = "polyvisor";
const CHECKSUMS = ["sha256", "sha384", "sha512"];

export function readCatalogue(text: string, where: string, architecture: string): CatalogueBox {
  const fail = (what: string): never => {
    throw new CliError(`${where} is not a box catalogue: ${what}`);
  };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    fail((error as Error).message);
  }
  const object = (value: unknown, what: string): Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : fail(`${what} is not an object`);
  const string = (value: unknown, what: string): string => (typeof value === "string" && value !== "" ? value : fail(`${what} is not a text`));
  const list = (value: unknown, what: string): unknown[] => (Array.isArray(value) ? value : fail(`${what} is not a list`));

  const root = object(json, "the whole");
  const name = string(root["name"], "name");
  const providers = new Set<string>();
  const versions = list(root["versions"], "versions").flatMap((each, i): CatalogueVersion[] => {
    const entry = object(each, `versions[${i}]`);
    const version = string(entry["version"], `versions[${i}].version`);
    for (const [j, one] of list(entry["providers"], `versions[${i}].providers`).entries()) {
      const what = `versions[${i}].providers[${j}]`;
      const provider = object(one, what);
      providers.add(string(provider["name"], `${what}.name`));
      const forUs = provider["architecture"] === undefined || provider["architecture"] === architecture || provider["architecture"] === "unknown";
      if (provider["name"] !== PROVIDER || !forUs) continue;
      const type = provider["checksum_type"];
      if (type !== undefined && !CHECKSUMS.includes(String(type))) fail(`${what}.checksum_type is "${String(type)}"; ${CHECKSUMS.join(", ")} are checked`);
      const checksum = type === undefined ? undefined : { type: String(type), value: string(provider["checksum"], `${what}.checksum`).toLowerCase() };
      return [{ version, url: string(provider["url"], `${what}.url`), checksum }];
    }
    return [];
  });
  if (versions.length === 0) fail(`it has no version for provider "${PROVIDER}" and ${architecture}; its providers are: ${[...providers].join(", ") || "none"}`);
  const description = typeof root["description"] === "string" ? root["description"] : "";
  return { name, description, versions: versions.toSorted((a, b) => compareVersions(b.version, a.version)) };
}

/** The newest version that satisfies a constraint such as "1.2.0", ">= 1.0", "~> 1.2" or "> 1, < 2" (Vagrant's `--box-version`). */
export function chooseVersion(box: CatalogueBox, constraint: string | undefined): CatalogueVersion {
  const tests = (constraint ?? ">= 0").split(",").map((part) => {
    const match = /^\s*(=|!=|>=|<=|>|<|~>)?\s*(\d+(?:\.\d+)*\S*)\s*$/.exec(part);
    if (!match) throw new CliError(`"${part.trim()}" is not a version constraint; expected e.g. 1.2.0, ">= 1.0" or "~> 1.2"`);
    return { operator: match[1] ?? "=", wanted: match[2] as string };
  });
  const found = box.versions.find(({ version }) => tests.every(({ operator, wanted }) => satisfies(version, operator, wanted)));
  if (!found) throw new CliError(`${box.name} has no version ${constraint}; it has: ${box.versions.map(({ version }) => version).join(", ")}`);
  return found;
}

function satisfies(version: string, operator: string, wanted: string): boolean {
  const order = compareVersions(version, wanted);
  switch (operator) {
    case "=": return order === 0;
    case "!=": return order !== 0;
    case ">": return order > 0;
    case ">=": return order >= 0;
    case "<": return order < 0;
    case "<=": return order <= 0;
    default: {
      // "~> 1.2.3": at least that, below 1.3.
      const parts = wanted.split(".").map(Number);
      const limit = parts.length > 1 ? parts.slice(0, -1) : parts;
      const below = [...limit.slice(0, -1), (limit.at(-1) as number) + 1].join(".");
      // A pre-release of what lies beyond is not below it: "~> 1.2" takes no 2.0.beta (RubyGems compares the release).
      const release = version.split(/[.-]/).filter((part) => /^\d+$/.test(part)).join(".");
      return order >= 0 && compareVersions(release, below) < 0;
    }
  }
}

/** Numbers by value, part for part; a part with letters comes before the same without (1.0.beta < 1.0), as RubyGems has it. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((version) => version.split(/[.-]/)) as [string[], string[]];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const [x = "0", y = "0"] = [left[i], right[i]];
    if (x === y) continue;
    const [m, n] = [/^\d+$/.test(x) ? Number(x) : undefined, /^\d+$/.test(y) ? Number(y) : undefined];
    if (m !== undefined && n !== undefined) {
      if (m !== n) return m - n;
    } else if (m === undefined && n === undefined) return x < y ? -1 : 1;
    else return m === undefined ? -1 : 1;
  }
  return 0;
}
