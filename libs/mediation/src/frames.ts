/**
 * Rules on packets. A message of the frames plane carries a batch of Ethernet frames; a rule whose text uses `frame` is
 * asked once for each of them, with the frame's decoded fields, and acts on that frame alone. Frames are decoded when the
 * first such rule asks, and once for all rules.
 */
import { completeFrame, decodeFrame, SETTABLE_FIELDS, withFrameField } from "@polyvisor/wire";
import { RuleError } from "./expression.ts";
import { parsePath, viewOf } from "./view.ts";

export interface BatchFrame {
  readonly data: Uint8Array;
  readonly offload: any;
}
export interface Batch {
  readonly frames: readonly BatchFrame[];
}

/**
 * In the place of a frame that is denied or dropped: it counts for flow control and is nothing else (network-fabric
 * contract, NET-5). Without it the sender's credit would leak away.
 */
export const LOST_FRAME: BatchFrame = { data: new Uint8Array(0), offload: undefined };

export function isBatch(message: unknown): message is Batch {
  return Array.isArray((message as Partial<Batch> | undefined)?.frames);
}
/** Whether a rule's text is about single frames. */
export function usesFrame(...texts: readonly (string | undefined)[]): boolean {
  return texts.some((text) => text !== undefined && /(^|[^\w.])frame\s*[.[]/.test(text.replaceAll(/"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/g, '""')));
}

const views = new WeakMap<Uint8Array, unknown>();

/** A frame as expressions see it. */
export function frameView({ data }: BatchFrame): unknown {
  let view = views.get(data);
  if (view === undefined) views.set(data, (view = viewOf(decodeFrame(data) ?? {})));
  return view;
}

/** "frame.dns.answers[0].address" → the path below `frame`; throws RuleError for what cannot be assigned. */
export function framePath(path: string): string[] {
  const names = parsePath(path).slice(1);
  const pattern = names.map((name) => (/^\d+$/.test(name) ? "N" : name)).join(".");
  if (!SETTABLE_FIELDS.some((field) => field.replace("[N]", ".N") === pattern)) {
    throw new RuleError(`assign ${path}: this field of a frame cannot be set; these can: ${SETTABLE_FIELDS.map((field) => `frame.${field}`).join(", ")}`);
  }
  return names;
}

/** The frame with a field replaced: complete frames, because checksums are computed anew. The same when it has no such field. */
export function assignFrame(frame: BatchFrame, path: readonly string[], value: unknown): BatchFrame[] {
  const plain = typeof value === "bigint" ? Number(value) : value;
  if (typeof plain !== "number" && typeof plain !== "string") throw new Error(`frame.${path.join(".")} cannot hold a ${typeof value}`);
  const whole = completeFrame(frame.data, frame.offload);
  if (!whole) return [frame];
  const changed = whole.map((data) => withFrameField(data, path, plain));
  return changed.some((data) => data !== undefined) ? whole.map((data, i) => ({ data: changed[i] ?? data, offload: undefined })) : [frame];
}

/** A copy with one bit flipped. */
export function corruptFrame(frame: BatchFrame, random: (below: number) => number): BatchFrame {
  if (frame.data.length === 0) return frame;
  const data = frame.data.slice();
  const bit = random(data.length * 8);
  data[bit >> 3]! ^= 1 << (bit & 7);
  return { ...frame, data };
}
