import { DOCKER_MEDIA_TYPES, MEDIA_TYPES } from "@polyvisor/image-spec";
import { ABSENT, begin, descriptor, digestOf, image, OCTETS, pushed, putManifest, withDigest, type Blob, type DistributionCase, type Step } from "./steps.ts";

const chunk = (blob: Blob, first: number, last: number, expect: Step["expect"]): Step => ({
  method: "PATCH", path: "{location}", headers: { ...OCTETS, "content-range": `${first}-${last}` }, body: blob.bytes.subarray(first, last + 1), expect,
  ...(expect.status[0] === 202 ? { save: { location: "location" } } : {}),
});
const accepted = (last: number): Step["expect"] => ({ status: [202], headers: { location: /./, range: `0-${last}` } });
const there = (blob: Blob, name = "{name}"): Step => ({ method: "GET", path: `/v2/${name}/blobs/${blob.digest}`, expect: { status: [200], body: blob.bytes } });
const finish = (blob: Blob, rest: Uint8Array = new Uint8Array(0), expect: Step["expect"] = { status: [201], headers: { location: /./ } }): Step => ({
  method: "PUT", path: withDigest(blob.digest), headers: OCTETS, body: rest, expect,
});
const status = (range: string): Step => ({ method: "GET", path: "{location}", expect: { status: [204], headers: { location: /./, range } } });

/** distribution-spec 1.1, "Push". */
export const PUSH: readonly DistributionCase[] = [
  {
    id: "DIST-20", section: "POST then PUT", title: "a blob in one PUT → 201 with its location, from which it can be pulled", level: "MUST",
    steps: (f) => {
      const blob = f.blob();
      return [
        begin(),
        { ...finish(blob, blob.bytes), expect: { status: [201], headers: { location: /./ } }, save: { blob: "location" } },
        there(blob),
        { method: "GET", path: "{blob}", expect: { status: [200], body: blob.bytes } },
      ];
    },
  },
  {
    id: "DIST-21", section: "Single POST", title: "a blob in one POST → 201, or 202 and then PUT", level: "MUST",
    steps: (f) => {
      const blob = f.blob();
      return [{ method: "POST", path: `/v2/{name}/blobs/uploads/?digest=${blob.digest}`, headers: OCTETS, body: blob.bytes, expect: { status: [201, 202], headers: { location: /./ } } }];
    },
  },
  {
    id: "DIST-22", section: "Pushing a blob monolithically", title: "an empty blob → 201, and it can be pulled", level: "SHOULD",
    steps: () => {
      const blob = { bytes: new Uint8Array(0), digest: digestOf(new Uint8Array(0)) };
      return [begin(), finish(blob), there(blob)];
    },
  },
  {
    id: "DIST-23", section: "Pushing a blob monolithically", title: "bytes that do not have the digest → 400 DIGEST_INVALID, and nothing is stored", level: "MUST",
    steps: (f) => {
      const [blob, other] = [f.blob(), f.blob()];
      return [begin(), finish(blob, other.bytes, { status: [400], error: "DIGEST_INVALID" }), { method: "GET", path: `/v2/{name}/blobs/${blob.digest}`, expect: { status: [404] } }];
    },
  },
  {
    id: "DIST-24", section: "Pushing a blob monolithically", title: "PUT without a digest, or with a malformed one → 400 DIGEST_INVALID", level: "MUST",
    steps: (f) => {
      const blob = f.blob();
      return [
        begin(),
        { method: "PUT", path: "{location}", headers: OCTETS, body: blob.bytes, expect: { status: [400], error: "DIGEST_INVALID" } },
        begin(),
        { method: "PUT", path: withDigest("sha256:xyz"), headers: OCTETS, body: blob.bytes, expect: { status: [400], error: "DIGEST_INVALID" } },
      ];
    },
  },
  {
    id: "DIST-25", section: "Pushing a blob in chunks", title: "chunks in order, then PUT → 202 each with the range so far, 201", level: "MUST",
    steps: (f) => {
      const blob = f.blob(3000);
      return [begin(), chunk(blob, 0, 999, accepted(999)), chunk(blob, 1000, 2999, accepted(2999)), finish(blob), there(blob)];
    },
  },
  {
    id: "DIST-26", section: "Pushing a blob in chunks", title: "the last chunk with the closing PUT → 201", level: "MUST",
    steps: (f) => {
      const blob = f.blob(3000);
      return [begin(), chunk(blob, 0, 1999, accepted(1999)), finish(blob, blob.bytes.subarray(2000)), there(blob)];
    },
  },
  {
    id: "DIST-27", section: "Pushing a blob in chunks", title: "a chunk out of order → 416; the upload stands where it stood and goes on", level: "MUST",
    steps: (f) => {
      const blob = f.blob(3000);
      return [
        begin(),
        chunk(blob, 1000, 1999, { status: [416] }),
        chunk(blob, 0, 999, accepted(999)),
        chunk(blob, 2000, 2999, { status: [416] }),
        status("0-999"),
        chunk(blob, 1000, 2999, accepted(2999)),
        finish(blob),
        there(blob),
      ];
    },
  },
  {
    id: "DIST-28", section: "Pushing a blob in chunks", title: "a chunk that was sent before, or overlaps one → 416", level: "MUST",
    steps: (f) => {
      const blob = f.blob(3000);
      return [begin(), chunk(blob, 0, 1999, accepted(1999)), chunk(blob, 0, 1999, { status: [416] }), chunk(blob, 1000, 2999, { status: [416] }), status("0-1999")];
    },
  },
  {
    id: "DIST-29", section: "Pushing a blob in chunks", title: "the closing PUT with a chunk out of order → 416", level: "MUST",
    steps: (f) => {
      const blob = f.blob(3000);
      const put = finish(blob, blob.bytes.subarray(2000), { status: [416] });
      return [begin(), chunk(blob, 0, 999, accepted(999)), { ...put, headers: { ...OCTETS, "content-range": "2000-2999" } }];
    },
  },
  {
    id: "DIST-30", section: "Pushing a blob in chunks", title: "Content-Range and Content-Length differ → 4xx, and nothing is added", level: "SHOULD",
    steps: (f) => {
      const blob = f.blob(3000);
      const wrong: Step = { ...chunk(blob, 1000, 1999, { status: [400, 416] }), headers: { ...OCTETS, "content-range": "1000-1500" } };
      return [begin(), chunk(blob, 0, 999, accepted(999)), wrong, status("0-999")];
    },
  },
  {
    id: "DIST-31", section: "Pushing a blob in chunks", title: "a chunk without Content-Range is added at the end", level: "SHOULD",
    steps: (f) => {
      const blob = f.blob(3000);
      return [
        begin(),
        { method: "PATCH", path: "{location}", headers: OCTETS, body: blob.bytes.subarray(0, 1500), expect: accepted(1499), save: { location: "location" } },
        { method: "PATCH", path: "{location}", headers: OCTETS, body: blob.bytes.subarray(1500), expect: accepted(2999), save: { location: "location" } },
        finish(blob),
        there(blob),
      ];
    },
  },
  {
    id: "DIST-32", section: "Pushing a blob in chunks", title: "GET of an upload → 204 with Location and Range", level: "MUST",
    steps: (f) => {
      const blob = f.blob(3000);
      return [begin(), chunk(blob, 0, 999, accepted(999)), status("0-999")];
    },
  },
  {
    id: "DIST-33", section: "Cancel a blob upload", title: "DELETE of an upload → 204, then it is unknown: 404 BLOB_UPLOAD_UNKNOWN", level: "SHOULD",
    steps: (f) => [
      begin(),
      chunk(f.blob(1000), 0, 999, accepted(999)),
      { method: "DELETE", path: "{location}", headers: { "content-length": "0" }, expect: { status: [204] } },
      { method: "GET", path: "{location}", expect: { status: [404], error: "BLOB_UPLOAD_UNKNOWN" } },
    ],
  },
  {
    id: "DIST-34", section: "Pushing a blob in chunks", title: "an upload that has ended, or never was → 404 BLOB_UPLOAD_UNKNOWN", level: "MUST",
    steps: (f) => {
      const blob = f.blob();
      const gone: Step["expect"] = { status: [404], error: "BLOB_UPLOAD_UNKNOWN" };
      return [
        ...pushed(blob),
        { method: "PATCH", path: "{location}", headers: OCTETS, body: blob.bytes, expect: gone },
        { method: "PUT", path: withDigest(blob.digest), headers: OCTETS, body: blob.bytes, expect: gone },
      ];
    },
  },
  {
    id: "DIST-35", section: "Mounting a blob from another repository", title: "a blob that is there → 201 and it can be pulled here, or 202 and an upload", level: "MUST",
    steps: (f) => {
      const blob = f.blob();
      return [...pushed(blob, "{other}"), { method: "POST", path: `/v2/{name}/blobs/uploads/?mount=${blob.digest}&from={other}`, headers: { "content-length": "0" }, expect: { status: [201, 202], headers: { location: /./ } } }];
    },
  },
  {
    id: "DIST-36", section: "Mounting a blob from another repository", title: "mount → 201, and the blob can be pulled here", level: "MAY",
    steps: (f) => {
      const blob = f.blob();
      return [
        ...pushed(blob, "{other}"),
        { method: "POST", path: `/v2/{name}/blobs/uploads/?mount=${blob.digest}&from={other}`, headers: { "content-length": "0" }, expect: { status: [201], headers: { location: /./, "docker-content-digest": blob.digest } } },
        there(blob),
      ];
    },
  },
  {
    id: "DIST-37", section: "Mounting a blob from another repository", title: "a blob or a repository that is not there → 202, and the upload works", level: "SHOULD",
    steps: (f) => {
      const blob = f.blob();
      return [
        { method: "POST", path: `/v2/{name}/blobs/uploads/?mount=${blob.digest}&from={other}`, headers: { "content-length": "0" }, expect: { status: [202], headers: { location: /./ } }, save: { location: "location" } },
        finish(blob, blob.bytes),
        there(blob),
      ];
    },
  },
  {
    id: "DIST-40", section: "Pushing Manifests", title: "by tag, and by digest → 201 with its location and digest", level: "MUST",
    steps: (f) => {
      const { steps, manifest, config, layer } = image(f, "t");
      const other = f.manifest(config, [layer]);
      return [
        ...steps,
        putManifest(manifest, "t", { status: [201], headers: { location: /./, "docker-content-digest": manifest.digest } }),
        putManifest(other, other.digest, { status: [201], headers: { location: /./, "docker-content-digest": other.digest } }),
        { method: "HEAD", path: `/v2/{name}/manifests/${other.digest}`, headers: { accept: other.mediaType }, expect: { status: [200] } },
      ];
    },
  },
  {
    id: "DIST-41", section: "Pushing Manifests", title: "by a digest that is not its own → 400 DIGEST_INVALID", level: "MUST",
    steps: (f) => {
      const { steps, config, layer } = image(f, "t");
      return [...steps, putManifest(f.manifest(config, [layer]), ABSENT, { status: [400], error: "DIGEST_INVALID" })];
    },
  },
  {
    id: "DIST-42", section: "Push", title: "a manifest that names a blob which is not there → MANIFEST_BLOB_UNKNOWN", level: "MAY",
    steps: (f) => {
      const config = f.blob();
      return [...pushed(config), putManifest(f.manifest(config, [f.blob()]), "t", { status: [400, 404], error: "MANIFEST_BLOB_UNKNOWN" })];
    },
  },
  {
    id: "DIST-43", section: "Pushing Manifests", title: "what is no manifest → 400 MANIFEST_INVALID", level: "MUST",
    steps: () => [
      putManifest({ bytes: new TextEncoder().encode("{"), digest: "", mediaType: MEDIA_TYPES.manifest }, "t", { status: [400], error: "MANIFEST_INVALID" }),
      putManifest({ bytes: new TextEncoder().encode("[]"), digest: "", mediaType: MEDIA_TYPES.index }, "t", { status: [400], error: "MANIFEST_INVALID" }),
    ],
  },
  {
    id: "DIST-44", section: "Pushing Manifests", title: "a Content-Type that is not the manifest's → 400 MANIFEST_INVALID", level: "SHOULD",
    steps: (f) => {
      const { steps, manifest } = image(f, "t");
      return [...steps, putManifest({ ...manifest, mediaType: MEDIA_TYPES.index }, "u", { status: [400], error: "MANIFEST_INVALID" })];
    },
  },
  {
    id: "DIST-45", section: "Pushing Manifests", title: "a manifest above 4 MiB → 413", level: "SHOULD",
    steps: (f) => [putManifest(f.manifest(f.blob(), [], { annotations: { x: "y".repeat(4 * 1024 * 1024) } }), "t", { status: [413] })],
  },
  {
    id: "DIST-46", section: "Pushing Manifests", title: "a manifest of nearly 4 MiB → 201", level: "SHOULD",
    steps: (f) => {
      const config = f.blob();
      return [...pushed(config), putManifest(f.manifest(config, [], { annotations: { x: "y".repeat(4 * 1024 * 1024 - 4096) } }), "t")];
    },
  },
  {
    id: "DIST-47", section: "Pushing Manifests", title: "an index of images → 201, pulled byte by byte with its type", level: "MUST",
    steps: (f) => {
      const { steps, manifest } = image(f, "t");
      const index = f.index([manifest]);
      return [
        ...steps,
        putManifest(index, "all"),
        { method: "GET", path: "/v2/{name}/manifests/all", headers: { accept: index.mediaType }, expect: { status: [200], body: index.bytes, headers: { "content-type": index.mediaType } } },
      ];
    },
  },
  {
    id: "DIST-48", section: "Pushing Manifests", title: "Docker's image manifest → 201, and its type is kept", level: "MAY",
    steps: (f) => {
      const { steps, config, layer } = image(f, "t");
      const docker = { ...f.manifest(config, [layer], { mediaType: DOCKER_MEDIA_TYPES.manifest }), mediaType: DOCKER_MEDIA_TYPES.manifest };
      return [
        ...steps,
        putManifest(docker, "docker"),
        { method: "GET", path: "/v2/{name}/manifests/docker", headers: { accept: docker.mediaType }, expect: { status: [200], body: docker.bytes, headers: { "content-type": docker.mediaType } } },
      ];
    },
  },
  {
    id: "DIST-49", section: "Pushing a manifest with a subject field", title: "→ 201 with OCI-Subject, whether the subject is there or not", level: "MUST",
    steps: (f) => {
      const { steps, manifest, config, layer } = image(f, "t");
      const absent = f.manifest(config, [layer]);
      const refer = (subject: typeof manifest) => f.manifest(config, [layer], { artifactType: "application/x", subject: descriptor(subject) });
      return [
        ...steps,
        putManifest(refer(manifest), "a", { status: [201], headers: { "oci-subject": manifest.digest } }),
        putManifest(refer(absent), "b", { status: [201], headers: { "oci-subject": absent.digest } }),
      ];
    },
  },
];
