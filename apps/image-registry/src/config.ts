import { address, byteCount, defineConfig, path } from "@polyvisor/service-kit";

export interface ImageRegistryConfig {
  /** Directory that holds everything; made if it is not there. Several processes may share it. */
  readonly root: string;
  readonly maxBlobBytes: number;
  /** Where the OCI distribution API is served; empty: nowhere. */
  readonly http: string;
  readonly tlsCert: string;
  readonly tlsKey: string;
  readonly quotaBytes: number;
  readonly repositoryQuotaBytes: number;
}

export const CONFIG = defineConfig<ImageRegistryConfig>({
  root: { doc: "directory of blobs, boxes and disks", type: path, flag: "state-dir", env: "PV_STATE_DIR" },
  maxBlobBytes: { doc: "largest blob that is taken", type: byteCount, default: 64 * 1024 ** 3 },
  http: {
    doc: "host:port of the OCI distribution API; port 0: a free one, the same again next time; empty: not served",
    type: address, default: "127.0.0.1:0", env: "PV_REGISTRY_HTTP",
  },
  tlsCert: { doc: "certificate chain (PEM) for https", type: path, default: "", env: "PV_REGISTRY_TLS_CERT" },
  tlsKey: { doc: "its private key (PEM)", type: path, default: "", env: "PV_REGISTRY_TLS_KEY" },
  quotaBytes: { doc: "what pushes may fill in all; 0: no limit", type: byteCount, default: 0, env: "PV_REGISTRY_QUOTA_BYTES" },
  repositoryQuotaBytes: { doc: "what pushes may fill in one repository; 0: no limit", type: byteCount, default: 0, env: "PV_REGISTRY_REPOSITORY_QUOTA_BYTES" },
});
