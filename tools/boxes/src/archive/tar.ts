import { readTar } from "@polyvisor/image-spec";

/** Hands out the regular files of a tar stream that are asked for, under paths without a leading "./" or "/". */
export async function readFiles(
  source: AsyncIterable<Uint8Array>,
  wanted: (path: string) => boolean,
  onFile: (path: string, data: Uint8Array) => void | Promise<void>,
): Promise<void> {
  for await (const entry of readTar(source)) {
    const path = plainPath(entry.path);
    if (entry.kind === "file" && wanted(path)) await onFile(path, await entry.read());
  }
}

/** "./usr/bin/" → "usr/bin"; the root itself is "". */
export const plainPath = (path: string): string => path.replace(/^(\.?\/+)+/, "").replace(/^\.$/, "").replace(/\/+$/, "");
