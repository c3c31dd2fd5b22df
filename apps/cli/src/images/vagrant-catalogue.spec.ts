import { describe, expect, it } from "vitest";
import { chooseVersion, compareVersions, readCatalogue } from "./vagrant-catalogue.ts";

const provider = (url: string, more: object = {}): object => ({ name: "polyvisor", url, ...more });
const catalogue = (versions: object[]): string => JSON.stringify({ name: "me/box", description: "d", versions });

describe("Vagrant's catalogue", () => {
  const text = catalogue([
    { version: "1.9.0", providers: [{ name: "virtualbox", url: "x" }, provider("a", { checksum_type: "sha256", checksum: "AB" })] },
    { version: "1.10.0", providers: [provider("amd", { architecture: "amd64" }), provider("b", { architecture: "riscv64" })] },
    { version: "2.0.beta", providers: [provider("c")] },
    { version: "3.0", providers: [{ name: "libvirt", url: "x" }] },
  ]);
  it("our provider's versions, newest first by number, for the guest's architecture", () => {
    const box = readCatalogue(text, "x.json", "riscv64");
    expect(box.versions.map(({ version, url }) => [version, url])).toEqual([["2.0.beta", "c"], ["1.10.0", "b"], ["1.9.0", "a"]]);
    expect(box.versions[2]!.checksum).toEqual({ type: "sha256", value: "ab" });
  });
  it.each([[undefined, "2.0.beta"], ["1.9.0", "1.9.0"], ["~> 1.9", "1.10.0"], ["~> 1.9.0", "1.9.0"], [">= 1.0, < 2.0.beta", "1.10.0"], ["!= 2.0.beta", "1.10.0"]])(
    "constraint %s → %s",
    (constraint, version) => expect(chooseVersion(readCatalogue(text, "x", "riscv64"), constraint).version).toBe(version),
  );
  it("a version that is not there, a constraint that is none → says what there is", () => {
    const box = readCatalogue(text, "x", "riscv64");
    expect(() => chooseVersion(box, "9")).toThrow("me/box has no version 9; it has: 2.0.beta, 1.10.0, 1.9.0");
    expect(() => chooseVersion(box, "latest")).toThrow(/not a version constraint/);
  });
  it.each([
    ["{", /not a box catalogue/],
    ["[]", /the whole is not an object/],
    [catalogue([{ version: "1", providers: [{ name: "virtualbox", url: "x" }] }]), /no version for provider "polyvisor".*its providers are: virtualbox/],
    [catalogue([{ version: "1", providers: [provider("x", { checksum_type: "md5", checksum: "1" })] }]), /checksum_type is "md5"/],
    [catalogue([{ version: 1, providers: [] }]), /versions\[0\]\.version is not a text/],
  ])("%s → refused with the place", (bad, message) => expect(() => readCatalogue(bad, "x", "riscv64")).toThrow(message));
  it("versions compare by number; a pre-release comes before its release", () => {
    expect(compareVersions("1.10", "1.9")).toBeGreaterThan(0);
    expect(compareVersions("1.0", "1.0.0")).toBe(0);
    expect(compareVersions("1.0.beta", "1.0")).toBeLessThan(0);
  });
});
