import { byteCount, defineConfig, integer, toggle } from "@polyvisor/service-kit";

/** Configuration of the memory-manager. */
export interface MemoryManagerConfig {
  readonly sharedLeases: boolean;
  readonly mappedLeases: boolean;
  readonly maxSpaces: number;
  readonly grantPages: number;
  readonly grantDataBytes: number;
  readonly holderTimeoutMs: number;
}

export const DEFAULT_CONFIG: MemoryManagerConfig = {
  sharedLeases: false,
  mappedLeases: true,
  maxSpaces: 64,
  grantPages: 1024,
  // As large as a message can be before it delays the ones behind it noticeably (~0.1 ms on a Unix socket).
  grantDataBytes: 256 * 1024,
  holderTimeoutMs: 10_000,
};

export const CONFIG = defineConfig<MemoryManagerConfig>({
  sharedLeases: {
    doc: "offer SHARED leases: only useful where the opener runs in this process",
    type: toggle,
    default: DEFAULT_CONFIG.sharedLeases,
  },
  mappedLeases: {
    doc: "offer MAPPED leases to processes of this host, where it can be had (Linux); off: every page goes by message",
    type: toggle,
    default: DEFAULT_CONFIG.mappedLeases,
  },
  maxSpaces: { doc: "spaces at a time", type: integer(1, 4096), default: DEFAULT_CONFIG.maxSpaces },
  grantPages: {
    doc: "pages in one grant at most (read-ahead)",
    type: integer(1, 1 << 20),
    default: DEFAULT_CONFIG.grantPages,
  },
  grantDataBytes: {
    doc: "page data in one grant at most (one page always fits)",
    type: byteCount,
    default: DEFAULT_CONFIG.grantDataBytes,
  },
  holderTimeoutMs: {
    doc: "a holder that leaves a recall or an access unanswered for so long is cut off",
    type: integer(1),
    default: DEFAULT_CONFIG.holderTimeoutMs,
  },
});
