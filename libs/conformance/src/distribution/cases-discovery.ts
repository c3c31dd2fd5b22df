import { MEDIA_TYPES } from "@polyvisor/image-spec";
import { ABSENT, descriptor, image, pushed, putManifest, type DistributionCase, type Manifest, type Step } from "./steps.ts";

const TAGS = ["B", "Z1", "_x", "a", "b", "b.1", "c"]; // as bytes sort
const PUT_ORDER = ["c", "b.1", "a", "_x", "B", "b", "Z1"];

function tagged(f: Parameters<DistributionCase["steps"]>[0]): Step[] {
  const { steps, manifest } = image(f, PUT_ORDER[0]!);
  return [...steps, ...PUT_ORDER.slice(1).map((tag) => putManifest(manifest, tag))];
}
const list = (query: string, tags: readonly string[], link: RegExp | null): Step => ({
  method: "GET", path: `/v2/{name}/tags/list${query}`, expect: { status: [200], headers: { link, "content-type": /^application\/json/ }, json: { name: "{name}", tags } },
});
const referrers = (digest: string, query: string, expect: Step["expect"]): Step => ({ method: "GET", path: `/v2/{name}/referrers/${digest}${query}`, expect });
const listed = (manifests: readonly object[]): object => ({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests });
const INDEX = { "content-type": MEDIA_TYPES.index };

/** distribution-spec 1.1, "Content Discovery". */
export const DISCOVERY: readonly DistributionCase[] = [
  {
    id: "DIST-60", section: "Listing Tags", title: "tags, pushed in any order → all, sorted as bytes", level: "MUST",
    steps: (f) => [...tagged(f), list("", TAGS, null)],
  },
  {
    id: "DIST-61", section: "Listing Tags", title: "n → so many, with a Link to the next page", level: "MUST",
    steps: (f) => [...tagged(f), list("?n=3", TAGS.slice(0, 3), /<.*[?&]last=_x.*>;\s*rel="?next"?/), list("?n=100", TAGS, null), list("?n=7", TAGS, null)],
  },
  {
    id: "DIST-62", section: "Listing Tags", title: "last → those after it, whether it is a tag or not; n is optional then", level: "MUST",
    steps: (f) => [...tagged(f), list("?n=2&last=a", ["b", "b.1"], /rel="?next"?/), list("?n=2&last=b", ["b.1", "c"], null), list("?last=b", ["b.1", "c"], null), list("?last=aa", ["b", "b.1", "c"], null), list("?last=zzz", [], null)],
  },
  {
    id: "DIST-63", section: "Listing Tags", title: "n=0 → an empty list and no Link", level: "MUST",
    steps: (f) => [...tagged(f), list("?n=0", [], null)],
  },
  {
    id: "DIST-64", section: "Listing Tags", title: "a repository without tags → 200 with an empty list", level: "MUST",
    steps: (f) => {
      const config = f.blob();
      const manifest = f.manifest(config, []);
      return [...pushed(config), putManifest(manifest, manifest.digest), { method: "GET", path: "/v2/{name}/tags/list", expect: { status: [200], json: { name: "{name}" } } }];
    },
  },
  {
    id: "DIST-65", section: "Listing Tags", title: "an n that is no number → 400", level: "SHOULD",
    steps: (f) => [...tagged(f), { method: "GET", path: "/v2/{name}/tags/list?n=x", expect: { status: [400] } }],
  },
  {
    id: "DIST-70", section: "Listing Referrers", title: "no referrers, or no such manifest → 200 with an empty index", level: "MUST",
    steps: (f) => {
      const { steps, manifest } = image(f, "t");
      const none = { status: [200], headers: INDEX, json: listed([]) };
      return [...steps, referrers(manifest.digest, "", none), referrers(ABSENT, "", none)];
    },
  },
  {
    id: "DIST-71", section: "Listing Referrers", title: "a malformed digest → 400", level: "MUST",
    steps: (f) => [...image(f, "t").steps, referrers("sha256:abc", "", { status: [400] })],
  },
  {
    id: "DIST-72", section: "Listing Referrers", title: "referrers → descriptors with artifactType (else the config's type) and annotations; of an index without it none", level: "MUST",
    steps: (f) => {
      const { steps, manifest, config, layer } = image(f, "t");
      const subject = descriptor(manifest);
      const typed = f.manifest(config, [layer], { artifactType: "application/vnd.example.sbom", annotations: { a: "1" }, subject });
      const untyped = f.manifest(config, [layer], { annotations: { a: "2" }, subject });
      const index = f.index([manifest], { annotations: { a: "3" }, subject });
      const entry = (m: Manifest, a: string, artifactType: string | undefined): object => ({ ...descriptor(m), annotations: { a }, artifactType });
      const all = [entry(typed, "1", "application/vnd.example.sbom"), entry(untyped, "2", MEDIA_TYPES.config), entry(index, "3", undefined)];
      return [
        ...steps,
        ...[typed, untyped, index].map((each) => putManifest(each, each.digest, { status: [201], headers: { "oci-subject": manifest.digest } })),
        referrers(manifest.digest, "", { status: [200], headers: INDEX, json: { ...listed([]), manifests: { unordered: all } } }),
      ];
    },
  },
  {
    id: "DIST-73", section: "Listing Referrers", title: "artifactType → only those, and OCI-Filters-Applied", level: "SHOULD",
    steps: (f) => {
      const { steps, manifest, config, layer } = image(f, "t");
      const of = (artifactType: string) => f.manifest(config, [layer], { artifactType, annotations: {}, subject: descriptor(manifest) });
      const [a, b] = [of("application/a+json"), of("application/b")];
      const filtered = (type: string, found: object[]): Step =>
        referrers(manifest.digest, `?artifactType=${encodeURIComponent(type)}`, { status: [200], headers: { ...INDEX, "oci-filters-applied": "artifactType" }, json: listed(found) });
      return [
        ...steps, putManifest(a, a.digest), putManifest(b, b.digest),
        filtered("application/a+json", [{ ...descriptor(a), artifactType: "application/a+json" }]),
        filtered("application/none", []),
      ];
    },
  },
  {
    id: "DIST-74", section: "Listing Referrers", title: "a referrer pushed before its subject → listed; one that was deleted → not", level: "MUST",
    steps: (f) => {
      const [config, layer] = [f.blob(100), f.blob()];
      const manifest = f.manifest(config, [layer]);
      const sbom = f.manifest(config, [layer], { artifactType: "application/x", subject: descriptor(manifest) });
      return [
        ...pushed(config), ...pushed(layer), putManifest(sbom, sbom.digest), putManifest(manifest, "t"),
        referrers(manifest.digest, "", { status: [200], json: listed([{ digest: sbom.digest, artifactType: "application/x" }]) }),
        { method: "DELETE", path: `/v2/{name}/manifests/${sbom.digest}`, expect: { status: [202] } },
        referrers(manifest.digest, "", { status: [200], json: listed([]) }),
      ];
    },
  },
];

/** distribution-spec 1.1, "Content Management". */
export const MANAGEMENT: readonly DistributionCase[] = [
  {
    id: "DIST-80", section: "Deleting tags", title: "DELETE of a tag → 202, then 404; the manifest and its other tags stay", level: "MAY",
    steps: (f) => {
      const { steps, manifest } = image(f, "t");
      const get = (reference: string, status: number): Step => ({ method: "GET", path: `/v2/{name}/manifests/${reference}`, headers: { accept: manifest.mediaType }, expect: { status: [status] } });
      return [...steps, putManifest(manifest, "u"), { method: "DELETE", path: "/v2/{name}/manifests/t", expect: { status: [202] } }, get("t", 404), get("u", 200), get(manifest.digest, 200)];
    },
  },
  {
    id: "DIST-81", section: "Deleting Manifests", title: "DELETE of a digest → 202, then 404 for it and for its tags, DELETE too", level: "MUST",
    steps: (f) => {
      const { steps, manifest } = image(f, "t");
      const path = `/v2/{name}/manifests/${manifest.digest}`;
      return [
        ...steps,
        { method: "DELETE", path, expect: { status: [202] } },
        { method: "GET", path, expect: { status: [404] } },
        { method: "GET", path: "/v2/{name}/manifests/t", expect: { status: [404] } },
        { method: "DELETE", path, expect: { status: [404] } },
      ];
    },
  },
  {
    id: "DIST-82", section: "Deleting Blobs", title: "DELETE of a blob → 202, then 404, DELETE too; in another repository it stays", level: "MUST",
    steps: (f) => {
      const blob = f.blob();
      const path = `/v2/{name}/blobs/${blob.digest}`;
      return [
        ...pushed(blob), ...pushed(blob, "{other}"),
        { method: "DELETE", path, expect: { status: [202] } },
        { method: "GET", path, expect: { status: [404] } },
        { method: "DELETE", path, expect: { status: [404] } },
        { method: "GET", path: `/v2/{other}/blobs/${blob.digest}`, expect: { status: [200], body: blob.bytes } },
      ];
    },
  },
  {
    id: "DIST-83", section: "Deleting Manifests", title: "DELETE of what is not there → 404", level: "MUST",
    steps: (f) => [
      ...image(f, "t").steps,
      { method: "DELETE", path: `/v2/{name}/manifests/${ABSENT}`, expect: { status: [404] } },
      { method: "DELETE", path: `/v2/{name}/blobs/${ABSENT}`, expect: { status: [404] } },
      { method: "DELETE", path: `/v2/{other}/manifests/${ABSENT}`, expect: { status: [404] } },
    ],
  },
  {
    id: "DIST-84", section: "Deleting Manifests", title: "a tag moved to another manifest → the tag follows, the older one stays by digest", level: "MUST",
    steps: (f) => {
      const { steps, manifest, config, layer } = image(f, "t");
      const newer = f.manifest(config, [layer]);
      const get = (reference: string, m: Manifest): Step => ({ method: "GET", path: `/v2/{name}/manifests/${reference}`, headers: { accept: m.mediaType }, expect: { status: [200], body: m.bytes } });
      return [...steps, putManifest(newer, "t"), get("t", newer), get(manifest.digest, manifest)];
    },
  },
];
