import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ContractError, mediated } from "@polyvisor/contracts";
import { IMAGE, type ImagePort } from "@polyvisor/contracts/image";
import { afterAll, describe, expect, it } from "vitest";
import { BareMachine } from "../core/interpreter/bare-machine.ts";
import { testContext } from "@polyvisor/testkit";
import { RegistryTranslations } from "./registry-translations.ts";

/** Blobs and keys in memory. */
class Registry {
  readonly blobs = new Map<string, Uint8Array>();
  readonly keys = new Map<string, string>();
  readonly port: ImagePort = mediated(IMAGE, {
    readBlob: ({ digest }, out) => {
      out.send({ data: this.blobs.get(digest)! });
      out.close();
    },
    writeBlob: (channel) => {
      const pieces: Uint8Array[] = [];
      channel.onMessage(({ data, finish }) => {
        pieces.push(Uint8Array.from(data));
        if (finish) channel.send({ digest: this.store(Buffer.concat(pieces)), bytes: 0n });
      });
    },
    putTranslation: ({ key, digest }) => {
      this.keys.set(key, digest);
      return { digest };
    },
    findTranslation: ({ key }) => ({ digest: this.keys.get(key) ?? "", bytes: 0n }),
  });
  store(bytes: Uint8Array): string {
    const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    this.blobs.set(digest, bytes);
    return digest;
  }
}

describe("static translations in the registry", () => {
  const home = mkdtempSync(join(tmpdir(), "pv-translations-"));
  afterAll(() => rmSync(home, { recursive: true }));
  const { log } = testContext();
  const code = ["sha256:kernel", "sha256:initrd"];
  const recorder = new BareMachine(1 << 20, "recording");
  recorder.load("li s0, 50\n1: addi s0, s0, -1\n bnez s0, 1b\n wfi");
  recorder.run(10_000);
  const { recorded } = recorder.hot!;

  it("what was saved is found by whoever has the host's key, for the same code only, and kept in this process", async () => {
    const registry = new Registry();
    const keyFile = join(home, "state", "key");
    const saved = await new RegistryTranslations(registry.port, keyFile, log).save(code, recorded);
    expect(saved.regions).toBe(recorded.length);
    expect(statSync(keyFile).mode & 0o777).toBe(0o600);
    const other = new RegistryTranslations(registry.port, keyFile, log);
    const found = await other.find(code);
    expect(found!.modules.flatMap(({ regions }) => regions.map((region) => region.recorded))).toEqual(recorded);
    expect(await other.find(code)).toBe(found);
    expect(await other.find(code.slice(0, 1))).toBeUndefined();
    expect(await other.find([])).toBeUndefined();
  });

  it("made by another host, moved to another key, or damaged: not used", async () => {
    const registry = new Registry();
    const translations = new RegistryTranslations(registry.port, join(home, "one"), log);
    const { key, digest } = await translations.save(code, recorded);
    expect(await new RegistryTranslations(registry.port, join(home, "two"), log).find(code)).toBeUndefined();
    const elsewhere = await translations.save(["sha256:other"], recorded);
    registry.keys.set(key, elsewhere.digest);
    expect(await translations.find(code)).toBeUndefined();
    const damaged = Uint8Array.from(registry.blobs.get(digest)!);
    damaged[damaged.length - 9]! ^= 1;
    for (const bytes of [damaged, damaged.subarray(0, 20), new Uint8Array(0)]) {
      registry.keys.set(key, registry.store(bytes));
      expect(await translations.find(code)).toBeUndefined();
    }
    registry.keys.set(key, digest);
    expect(await translations.find(code)).toBeDefined();
  });

  it("a registry that fails costs nothing but the translation", async () => {
    const port = mediated(IMAGE, { findTranslation: () => Promise.reject(new ContractError("unavailable", "gone")) });
    expect(await new RegistryTranslations(port, "", log).find(code)).toBeUndefined();
  });
});
