import { ABSENT, image, pushed, type DistributionCase } from "./steps.ts";

/** distribution-spec 1.1, "Pull". */
export const PULL: readonly DistributionCase[] = [
  {
    id: "DIST-1", section: "Determining Support", title: "GET /v2/ → 200", level: "MUST",
    steps: () => [{ method: "GET", path: "/v2/", expect: { status: [200] } }],
  },
  {
    id: "DIST-2", section: "Pulling manifests", title: "a tag, or a digest → the manifest byte by byte, its type and digest", level: "MUST",
    steps: (f) => {
      const { steps, manifest } = image(f, "t");
      const headers = { "content-type": manifest.mediaType, "docker-content-digest": manifest.digest };
      const get = (reference: string) => ({ method: "GET", path: `/v2/{name}/manifests/${reference}`, headers: { accept: manifest.mediaType }, expect: { status: [200], headers, body: manifest.bytes } }) as const;
      return [...steps, get("t"), get(manifest.digest)];
    },
  },
  {
    id: "DIST-3", section: "Checking if content exists in the registry", title: "HEAD of a manifest → 200 with its size and digest, no body", level: "MUST",
    steps: (f) => {
      const { steps, manifest } = image(f, "t");
      const headers = { "content-length": String(manifest.bytes.length), "docker-content-digest": manifest.digest };
      const head = (reference: string) => ({ method: "HEAD", path: `/v2/{name}/manifests/${reference}`, headers: { accept: manifest.mediaType }, expect: { status: [200], headers } }) as const;
      return [...steps, head("t"), head(manifest.digest)];
    },
  },
  {
    id: "DIST-4", section: "Pulling manifests", title: "a tag or digest that is not there → 404 MANIFEST_UNKNOWN, HEAD too", level: "MUST",
    steps: (f) => [
      ...image(f, "t").steps,
      { method: "GET", path: "/v2/{name}/manifests/absent", expect: { status: [404], error: "MANIFEST_UNKNOWN" } },
      { method: "GET", path: `/v2/{name}/manifests/${ABSENT}`, expect: { status: [404], error: "MANIFEST_UNKNOWN" } },
      { method: "HEAD", path: "/v2/{name}/manifests/absent", expect: { status: [404] } },
      { method: "GET", path: "/v2/{name}/manifests/.not-a-tag", expect: { status: [404] } },
    ],
  },
  {
    id: "DIST-5", section: "Pulling manifests", title: "a repository that does not exist → 404", level: "MUST",
    steps: () => [
      { method: "GET", path: "/v2/{other}/manifests/t", expect: { status: [404] } },
      { method: "GET", path: `/v2/{other}/blobs/${ABSENT}`, expect: { status: [404] } },
      { method: "GET", path: "/v2/{other}/tags/list", expect: { status: [404], error: "NAME_UNKNOWN" } },
    ],
  },
  {
    id: "DIST-6", section: "Pulling manifests", title: "a name that the grammar does not allow → 400 NAME_INVALID or 404", level: "MUST",
    steps: () => [
      { method: "GET", path: "/v2/UPPER/tags/list", expect: { status: [400, 404] } },
      { method: "GET", path: "/v2/a..b/tags/list", expect: { status: [400, 404] } },
      { method: "GET", path: "/v2/a/%2e%2e/%2e%2e/etc/tags/list", expect: { status: [400, 404] } },
      { method: "POST", path: "/v2/-a/blobs/uploads/", headers: { "content-length": "0" }, expect: { status: [400, 404] } },
      { method: "POST", path: `/v2/${"a".repeat(300)}/blobs/uploads/`, headers: { "content-length": "0" }, expect: { status: [400, 404] } },
    ],
  },
  {
    id: "DIST-7", section: "Pulling blobs", title: "a blob → 200 with its bytes; HEAD with its size and digest", level: "MUST",
    steps: (f) => {
      const blob = f.blob(10_000);
      const path = `/v2/{name}/blobs/${blob.digest}`;
      return [
        ...pushed(blob),
        { method: "GET", path, expect: { status: [200], body: blob.bytes, headers: { "docker-content-digest": blob.digest } } },
        { method: "HEAD", path, expect: { status: [200], headers: { "content-length": "10000", "docker-content-digest": blob.digest } } },
      ];
    },
  },
  {
    id: "DIST-8", section: "Pulling blobs", title: "a blob that is not there → 404 BLOB_UNKNOWN, HEAD too", level: "MUST",
    steps: (f) => [
      ...pushed(f.blob()),
      { method: "GET", path: `/v2/{name}/blobs/${ABSENT}`, expect: { status: [404], error: "BLOB_UNKNOWN" } },
      { method: "HEAD", path: `/v2/{name}/blobs/${ABSENT}`, expect: { status: [404] } },
    ],
  },
  {
    id: "DIST-9", section: "Pulling blobs", title: "a blob of another repository → 404 here", level: "MUST",
    steps: (f) => {
      const blob = f.blob();
      return [...pushed(blob, "{other}"), { method: "GET", path: `/v2/{name}/blobs/${blob.digest}`, expect: { status: [404] } }];
    },
  },
  {
    id: "DIST-10", section: "Pulling blobs", title: "a range → 206 with those bytes; open-ended, and a suffix, too", level: "SHOULD",
    steps: (f) => {
      const blob = f.blob(1000);
      const part = (range: string, first: number, last: number) =>
        ({
          method: "GET", path: `/v2/{name}/blobs/${blob.digest}`, headers: { range },
          expect: { status: [206], body: blob.bytes.subarray(first, last + 1), headers: { "content-range": `bytes ${first}-${last}/1000`, "content-length": String(last - first + 1) } },
        }) as const;
      return [...pushed(blob), part("bytes=10-19", 10, 19), part("bytes=990-", 990, 999), part("bytes=-5", 995, 999), part("bytes=900-5000", 900, 999)];
    },
  },
  {
    id: "DIST-11", section: "Pulling blobs", title: "a range behind the end → 416", level: "SHOULD",
    steps: (f) => {
      const blob = f.blob(1000);
      return [...pushed(blob), { method: "GET", path: `/v2/{name}/blobs/${blob.digest}`, headers: { range: "bytes=1000-1010" }, expect: { status: [416], headers: { "content-range": "bytes */1000" } } }];
    },
  },
  {
    id: "DIST-12", section: "Pulling blobs", title: "a malformed digest → 400 DIGEST_INVALID", level: "SHOULD",
    steps: (f) => [
      ...pushed(f.blob()),
      { method: "GET", path: "/v2/{name}/blobs/sha256:abc", expect: { status: [400], error: "DIGEST_INVALID" } },
      { method: "GET", path: `/v2/{name}/blobs/sha256:${"Z".repeat(64)}`, expect: { status: [400], error: "DIGEST_INVALID" } },
      { method: "GET", path: "/v2/{name}/manifests/sha256:abc", expect: { status: [400], error: "DIGEST_INVALID" } },
    ],
  },
  {
    id: "DIST-13", section: "API", title: "a method that a path does not have → 405", level: "SHOULD",
    steps: () => [
      { method: "DELETE", path: "/v2/{name}/tags/list", expect: { status: [405] } },
      { method: "POST", path: "/v2/{name}/manifests/t", headers: { "content-length": "0" }, expect: { status: [405] } },
    ],
  },
];
