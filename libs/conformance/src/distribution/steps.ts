/**
 * Cases of the OCI distribution-spec as data: each is a list of requests and of what must come back. `{name}`, `{other}` and
 * whatever a step saves are put into paths and expectations.
 */
import { createHash } from "node:crypto";
import { MEDIA_TYPES } from "@polyvisor/image-spec";

export interface Step {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** From "/v2/", or a whole "{location}" that was saved; a query may follow. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly expect: Expectation;
  /** Response headers to remember, by variable. */
  readonly save?: Readonly<Record<string, string>>;
}

export interface Expectation {
  /** One of. */
  readonly status: readonly number[];
  /** Lower-case names. A string must be equal, a pattern must match; null: must not be there. */
  readonly headers?: Readonly<Record<string, string | RegExp | null>>;
  readonly body?: Uint8Array;
  /** Every field that is named must be equal; others may be there. */
  readonly json?: unknown;
  /** A body with this error code, if it has one at all (bodies of errors are a MAY). */
  readonly error?: string;
}

export interface DistributionCase {
  /** "DIST-12". */
  readonly id: string;
  /** Heading in the specification. */
  readonly section: string;
  /** A sentence: state or request → outcome. */
  readonly title: string;
  /** MUST and SHOULD count; cases of a MAY say so and an implementation may list them as deviations. */
  readonly level: "MUST" | "SHOULD" | "MAY";
  readonly steps: (fixtures: Fixtures) => readonly Step[];
}

export interface Blob {
  readonly digest: string;
  readonly bytes: Uint8Array;
}
export interface Manifest extends Blob {
  readonly mediaType: string;
}

export const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const encode = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

/** Content that no other case and no other run has. */
export class Fixtures {
  readonly #unique: string;
  #count = 0;
  constructor(unique: string) {
    this.#unique = unique;
  }

  blob(length = 1000): Blob {
    const seed = new TextEncoder().encode(`${this.#unique}/${this.#count++}/`);
    const bytes = Uint8Array.from({ length }, (_, i) => seed[i] ?? (i * 31 + (i >> 8)) & 0xff);
    return { bytes, digest: digestOf(bytes) };
  }

  /** An image manifest; `extra` is added to it. */
  manifest(config: Blob, layers: readonly Blob[], extra: object = {}): Manifest {
    const mediaType = MEDIA_TYPES.manifest;
    const bytes = encode({
      schemaVersion: 2,
      mediaType,
      config: { mediaType: MEDIA_TYPES.config, digest: config.digest, size: config.bytes.length },
      layers: layers.map(({ digest, bytes: { length } }) => ({ mediaType: "application/vnd.oci.image.layer.v1.tar", digest, size: length })),
      annotations: { "polyvisor.conformance": `${this.#unique}/${this.#count++}` },
      ...extra,
    });
    return { bytes, digest: digestOf(bytes), mediaType };
  }

  index(manifests: readonly Manifest[], extra: object = {}): Manifest {
    const mediaType = MEDIA_TYPES.index;
    const bytes = encode({ schemaVersion: 2, mediaType, manifests: manifests.map((each) => descriptor(each)), ...extra });
    return { bytes, digest: digestOf(bytes), mediaType };
  }
}

export const descriptor = ({ mediaType, digest, bytes }: Manifest): object => ({ mediaType, digest, size: bytes.length });
export const OCTETS = { "content-type": "application/octet-stream" } as const;
export const ABSENT = `sha256:${"0".repeat(64)}`;

/** An upload that has begun: its URL is {location}. */
export const begin = (name = "{name}"): Step => ({
  method: "POST", path: `/v2/${name}/blobs/uploads/`, headers: { "content-length": "0" }, expect: { status: [202], headers: { location: /./ } }, save: { location: "location" },
});

export const withDigest = (digest: string): string => `{location&}digest=${digest}`;

/** The steps that push a blob. */
export const pushed = (blob: Blob, name = "{name}"): Step[] => [
  begin(name),
  { method: "PUT", path: withDigest(blob.digest), headers: OCTETS, body: blob.bytes, expect: { status: [201], headers: { location: /./ } } },
];

export const putManifest = (manifest: Manifest, reference: string, expect: Expectation = { status: [201] }): Step => ({
  method: "PUT", path: `/v2/{name}/manifests/${reference}`, headers: { "content-type": manifest.mediaType }, body: manifest.bytes, expect,
});

/** Config, layer and manifest, tagged. */
export function image(f: Fixtures, tag: string, extra: object = {}): { steps: Step[]; manifest: Manifest; layer: Blob; config: Blob } {
  const [config, layer] = [f.blob(100), f.blob()];
  const manifest = f.manifest(config, [layer], extra);
  return { config, layer, manifest, steps: [...pushed(config), ...pushed(layer), putManifest(manifest, tag)] };
}
