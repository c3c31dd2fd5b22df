import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import S3rver from "@20minutes/s3rver";
import { temporaryDirectory } from "@polyvisor/testkit";
import type { ImageRegistryConfig } from "../index.ts";

type Cipher = (name: string, key: Buffer, iv: Buffer) => unknown;
/** s3rver makes its continuation tokens with DES, which OpenSSL 3 no longer has; triple DES has blocks of the same size. */
const crypto = createRequire(import.meta.url)("node:crypto") as Record<"createCipheriv" | "createDecipheriv", Cipher>;
for (const name of ["createCipheriv", "createDecipheriv"] as const) {
  const real = crypto[name];
  crypto[name] = (cipher, key, iv) => (cipher === "des" ? real("des-ede3-cbc", Buffer.concat([key, key, key]), iv) : real(cipher, key, iv));
}

/** An S3-compatible server in this process (s3rver), with one bucket and a registry's configuration for it. */
export async function startS3(): Promise<{ config: Partial<ImageRegistryConfig>; stop(): Promise<void>; close(): Promise<void> }> {
  const directory = temporaryDirectory("pv-s3-");
  const server = new S3rver({ address: "127.0.0.1", port: 0, silent: true, directory: directory.path, configureBuckets: [{ name: "blobs" }] });
  const { port } = (await server.run()) as AddressInfo;
  let running = true;
  const stop = async (): Promise<void> => {
    if (running) await server.close();
    running = false;
  };
  return {
    config: { s3: `http://127.0.0.1:${port}/blobs/some/prefix`, s3Region: "us-east-1", s3AccessKeyId: "S3RVER", s3SecretAccessKey: "S3RVER" },
    stop,
    async close() {
      await stop();
      directory[Symbol.dispose]();
    },
  };
}
