import { byteCount, defineConfig, path } from "@polyvisor/service-kit";

export interface ImageRegistryConfig {
  /** Directory that holds everything; made if it is not there. Several processes may share it. */
  readonly root: string;
  readonly maxBlobBytes: number;
}

export const CONFIG = defineConfig<ImageRegistryConfig>({
  root: { doc: "directory of blobs, boxes and disks", type: path, flag: "state-dir", env: "PV_STATE_DIR" },
  maxBlobBytes: { doc: "largest blob that is taken", type: byteCount, default: 64 * 1024 ** 3 },
});
