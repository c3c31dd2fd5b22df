import { describe, expect, it } from "vitest";
import {
  DOCKER_MEDIA_TYPES, formatRemoteReference, MEDIA_TYPES, parseByteRange, parseChallenges, parseContentRange, parseNextLink, parseRemoteReference,
  readErrors, readManifestView, writeErrors,
} from "./index.ts";

const SHA = `sha256:${"ab".repeat(32)}`;
const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const entry = (mediaType = "application/x"): object => ({ mediaType, digest: SHA, size: 7 });

describe("fields of the protocol", () => {
  it.each([["0-9", 0, 9], ["bytes 5-5/10", 5, 5], ["bytes=7-8", 7, 8]])("Content-Range %j", (value, first, last) => {
    expect(parseContentRange(value)).toEqual({ first, last });
  });
  it.each(["", "9-0", "-5", "5-", "a-b", "0-9999999999999999", "bytes 0-1-2"])("Content-Range %j → refused", (value) => {
    expect(() => parseContentRange(value)).toThrow(/Content-Range: expected/);
  });
  it.each([
    [undefined, "whole"], ["bytes=0-", { first: 0, last: 99 }], ["bytes=10-19", { first: 10, last: 19 }], ["bytes=-30", { first: 70, last: 99 }],
    ["bytes=-300", { first: 0, last: 99 }], ["bytes=90-1000", { first: 90, last: 99 }], ["bytes=100-", "unsatisfiable"], ["bytes=100-200", "unsatisfiable"],
    ["bytes=-0", "unsatisfiable"], ["bytes=9-1", "whole"], ["bytes=0-1,5-6", "whole"], ["lines=0-1", "whole"], ["bytes=-", "whole"],
  ])("Range %j of 100 bytes → %j", (value, expected) => {
    expect(parseByteRange(value, 100)).toEqual(expected);
  });
  it("Range of an empty blob → unsatisfiable", () => {
    expect(parseByteRange("bytes=0-", 0)).toBe("unsatisfiable");
    expect(parseByteRange("bytes=-5", 0)).toBe("unsatisfiable");
  });
  it.each([
    ['</v2/a/tags/list?last=b>; rel="next"', "/v2/a/tags/list?last=b"], ["<x>; rel=prev, <y>; title=t; rel=next", "y"], ['<x>; rel="prev"', undefined], [null, undefined],
  ])("Link %j → %j", (value, expected) => {
    expect(parseNextLink(value)).toBe(expected);
  });
  it("WWW-Authenticate with several challenges, quoted commas and escapes", () => {
    expect(parseChallenges('Bearer realm="https://a/t",service="s,\\"q\\"",scope="repository:a:pull,push", Basic realm=plain')).toEqual([
      { scheme: "bearer", parameters: { realm: "https://a/t", service: 's,"q"', scope: "repository:a:pull,push" } },
      { scheme: "basic", parameters: { realm: "plain" } },
    ]);
    expect(parseChallenges("")).toEqual([]);
    expect(parseChallenges("Negotiate")).toEqual([{ scheme: "negotiate", parameters: {} }]);
  });
  it("errors are read back as written; anything else is none", () => {
    expect(readErrors(writeErrors("NAME_UNKNOWN", "no a", { name: "a" }))).toEqual({ code: "NAME_UNKNOWN", message: "no a" });
    for (const text of ["", "<html>", "{}", '{"errors":[]}', '{"errors":[7]}']) expect(readErrors(text)).toBeUndefined();
  });
});

describe("remote references", () => {
  it.each([
    ["registry.example/a/b:1", "https://registry.example", "a/b", "1"], ["localhost:5000/a", "http://localhost:5000", "a", undefined],
    ["127.0.0.1:5000/a:x", "http://127.0.0.1:5000", "a", "x"], ["http://registry.example/a", "http://registry.example", "a", undefined],
    ["https://localhost:1/a", "https://localhost:1", "a", undefined], ["[::1]:5000/a", "http://[::1]:5000", "a", undefined],
  ])("%s", (text, origin, name, tag) => {
    const reference = parseRemoteReference(text);
    expect(reference).toEqual({ origin, name, tag, digest: undefined });
    expect(parseRemoteReference(formatRemoteReference(reference))).toEqual(reference);
  });
  it.each(["", "debian/minimal", "a", "registry.example", "registry.example/", "registry.example/A", "registry.example/a:", "ftp://x.y/a", "evil.example@x.y/a", "a b.c/d"])("%j → refused", (text) => {
    expect(() => parseRemoteReference(text)).toThrow(/expected/);
  });
});

describe("manifest views", () => {
  it("OCI and Docker manifests and indexes → the same shape", () => {
    for (const type of [MEDIA_TYPES.manifest, DOCKER_MEDIA_TYPES.manifest]) {
      const view = readManifestView(bytes({ schemaVersion: 2, mediaType: type, config: entry("a/config"), layers: [entry(), entry()], subject: entry() }), `${type}; charset=utf-8`);
      expect(view).toMatchObject({ kind: "manifest", mediaType: type, artifactType: "a/config", manifests: [], subject: { digest: SHA } });
      expect(view.blobs).toHaveLength(3);
    }
    for (const type of [MEDIA_TYPES.index, DOCKER_MEDIA_TYPES.list]) {
      expect(readManifestView(bytes({ schemaVersion: 2, manifests: [entry()] }), type)).toMatchObject({ kind: "index", blobs: [], manifests: [{ digest: SHA }] });
    }
  });
  it.each([
    ["another schema", { schemaVersion: 1, config: entry(), layers: [] }, MEDIA_TYPES.manifest],
    ["a type unlike its Content-Type", { schemaVersion: 2, mediaType: MEDIA_TYPES.index, config: entry(), layers: [] }, MEDIA_TYPES.manifest],
    ["a manifest that is an index too", { schemaVersion: 2, config: entry(), layers: [], manifests: [] }, MEDIA_TYPES.manifest],
    ["an index that is a manifest too", { schemaVersion: 2, layers: [], manifests: [] }, MEDIA_TYPES.index],
    ["a type that is no manifest's", { schemaVersion: 2 }, "application/json"],
    ["no config", { schemaVersion: 2, layers: [] }, MEDIA_TYPES.manifest],
    ["a size beyond 2^53", { schemaVersion: 2, config: { ...entry(), size: 1e300 }, layers: [] }, MEDIA_TYPES.manifest],
    ["too many layers", { schemaVersion: 2, config: entry(), layers: Array.from({ length: 10_001 }, () => entry("a/b")) }, MEDIA_TYPES.manifest],
  ])("%s → refused", (_name, value, type) => {
    expect(() => readManifestView(bytes(value), type)).toThrow(/expected/);
  });
});
