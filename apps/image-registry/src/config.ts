import { address, byteCount, choice, type ConfigSchema, defineConfig, path, text, toggle } from "@polyvisor/service-kit";

export interface ImageRegistryConfig {
  /** Directory that holds everything; made if it is not there. Several processes may share it. */
  readonly root: string;
  readonly maxBlobBytes: number;
  /** Object store for blobs: endpoint, bucket, prefix; empty: the directory. */
  readonly s3: string;
  readonly s3Region: string;
  readonly s3AccessKeyId: string;
  readonly s3SecretAccessKey: string;
  /** Where the OCI distribution API is served; empty: nowhere. */
  readonly http: string;
  readonly tlsCert: string;
  readonly tlsKey: string;
  readonly htpasswd: string;
  readonly authChallenge: "token" | "basic";
  readonly anonymousPull: boolean;
  readonly publicUrl: string;
  /** Registry that is cached; empty: none. */
  readonly upstream: string;
  readonly upstreamPrefix: string;
  readonly quotaBytes: number;
  readonly repositoryQuotaBytes: number;
}

export const CONFIG = defineConfig<ImageRegistryConfig>({
  root: { doc: "directory of blobs, boxes and disks", type: path, flag: "state-dir", env: "PV_STATE_DIR" },
  maxBlobBytes: { doc: "largest blob that is taken", type: byteCount, default: 64 * 1024 ** 3 },
  s3: { doc: "keep blobs in an S3-compatible store instead: https://endpoint/bucket[/prefix]; names and disks stay in the directory", type: text, default: "", env: "PV_REGISTRY_S3" },
  s3Region: { doc: "its region", type: text, default: "us-east-1", env: "AWS_REGION" },
  s3AccessKeyId: { doc: "its access key", type: text, default: "", env: "AWS_ACCESS_KEY_ID" },
  s3SecretAccessKey: { doc: "its secret key (the environment is the place for it)", type: text, default: "", env: "AWS_SECRET_ACCESS_KEY" },
  http: {
    doc: "host:port of the OCI distribution API; port 0: a free one, the same again next time; empty: not served",
    type: address, default: "127.0.0.1:0", env: "PV_REGISTRY_HTTP",
  },
  tlsCert: { doc: "certificate chain (PEM) for https", type: path, default: "", env: "PV_REGISTRY_TLS_CERT" },
  tlsKey: { doc: "its private key (PEM)", type: path, default: "", env: "PV_REGISTRY_TLS_KEY" },
  htpasswd: { doc: "file of users (htpasswd -B) who may push and pull; empty: everybody may", type: path, default: "", env: "PV_REGISTRY_HTPASSWD" },
  authChallenge: { doc: "how clients are asked to log in", type: choice("token", "basic"), default: "token", env: "PV_REGISTRY_AUTH_CHALLENGE" },
  anonymousPull: { doc: "with users: others may pull", type: toggle, default: false, env: "PV_REGISTRY_ANONYMOUS_PULL" },
  publicUrl: { doc: "how clients reach the API, where that is not as their Host header says (behind a proxy)", type: text, default: "", env: "PV_REGISTRY_PUBLIC_URL" },
  upstream: { doc: "URL of a registry whose images are fetched and kept when they are pulled here; empty: none", type: text, default: "", env: "PV_REGISTRY_UPSTREAM" },
  upstreamPrefix: { doc: "repositories that are upstream's begin with this (it is left out there); empty: all are", type: text, default: "", env: "PV_REGISTRY_UPSTREAM_PREFIX" },
  quotaBytes: { doc: "what pushes may fill in all; 0: no limit", type: byteCount, default: 0, env: "PV_REGISTRY_QUOTA_BYTES" },
  repositoryQuotaBytes: { doc: "what pushes may fill in one repository; 0: no limit", type: byteCount, default: 0, env: "PV_REGISTRY_REPOSITORY_QUOTA_BYTES" },
});

/** Every option's default; nothing is served over HTTP. */
export const DEFAULT_CONFIG: Omit<ImageRegistryConfig, "root"> = {
  ...(Object.fromEntries(Object.entries(CONFIG as ConfigSchema<Record<string, unknown>>).map(([key, option]) => [key, option.default])) as unknown as ImageRegistryConfig),
  http: "",
};
