import { ETHERTYPE, readU16, writeU16 } from "@polyvisor/wire";
import type { Frame, Offload } from "@polyvisor/contracts/network";

/** Which VLANs pass a port, and how (IEEE 802.1Q, 6.9: ingress classification, egress tagging). */
export interface VlanRule {
  /** Of untagged frames; 0: none, they stay outside of all VLANs. */
  readonly native: number;
  /** VLANs that pass tagged; undefined: all. */
  readonly tagged: ReadonlySet<number> | undefined;
}
/** Every frame passes as it is. */
export const TRANSPARENT: VlanRule = { native: 0, tagged: undefined };
/** VID 0 and 4095 are reserved (IEEE 802.1Q, table 9-2). */
export const MAX_VLAN = 4094;

const TAG_BYTES = 4;
const TAG_AT = 12;

/** As `Port.vlan` and `Port.trunk` say it. */
export function vlanRule(vlan: number, trunk: readonly number[]): VlanRule {
  return vlan === 0 && trunk.length === 0 ? TRANSPARENT : { native: vlan, tagged: new Set(trunk) };
}
/** The VLAN of a frame that comes in; undefined: it may not. A priority tag (VID 0) counts as untagged. */
export function classify(rule: VlanRule, frame: Uint8Array): number | undefined {
  const vid = vidOf(frame);
  if (vid === 0) return rule.native > 0 || rule.tagged === undefined ? rule.native : undefined;
  return rule.tagged === undefined || rule.tagged.has(vid) ? vid : undefined;
}
export function admits(rule: VlanRule, vid: number): boolean {
  return vid === rule.native || rule.tagged === undefined || (vid !== 0 && rule.tagged.has(vid));
}
/** The frame as it leaves a port that admits its VLAN: with the tag, or without. */
export function onLeaving(rule: VlanRule, vid: number, frame: Frame): Frame {
  const { data, offload } = frame;
  const tagged = isTagged(data);
  if (vid === rule.native) return tagged && vid !== 0 ? { data: withoutTag(data), offload: moved(offload, -TAG_BYTES) } : frame;
  return tagged ? frame : { data: withTag(data, vid), offload: moved(offload, TAG_BYTES) };
}

function isTagged(frame: Uint8Array): boolean {
  return frame[TAG_AT] === 0x81 && frame[TAG_AT + 1] === 0 && frame.length >= TAG_AT + TAG_BYTES + 2;
}
function vidOf(frame: Uint8Array): number {
  return isTagged(frame) ? readU16(frame, TAG_AT + 2) & 0xfff : 0;
}
function withoutTag(frame: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(frame.length - TAG_BYTES);
  bytes.set(frame.subarray(0, TAG_AT));
  bytes.set(frame.subarray(TAG_AT + TAG_BYTES), TAG_AT);
  return bytes;
}
function withTag(frame: Uint8Array, vid: number): Uint8Array {
  const bytes = new Uint8Array(frame.length + TAG_BYTES);
  bytes.set(frame.subarray(0, TAG_AT));
  writeU16(bytes, TAG_AT, ETHERTYPE.VLAN);
  writeU16(bytes, TAG_AT + 2, vid);
  bytes.set(frame.subarray(TAG_AT), TAG_AT + TAG_BYTES);
  return bytes;
}
/** virtio_net_hdr counts from the frame's first byte. */
function moved(offload: Offload | undefined, by: number): Offload | undefined {
  if (!offload) return undefined;
  const shift = (value: number): number => (value === 0 ? 0 : value + by);
  return { ...offload, checksumStart: shift(offload.checksumStart), headerLength: shift(offload.headerLength) };
}
