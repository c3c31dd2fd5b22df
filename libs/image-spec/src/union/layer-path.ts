/** Whiteouts (OCI image-spec 1.1, layer.md, "Whiteouts"). */
const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
/** Bookkeeping of AUFS, which some old layers carry; no file of the image. */
const AUFS = ".wh..wh.";

const PATH_LIMIT = 4096; // PATH_MAX
const NAME_LIMIT = 255; // NAME_MAX
const DEPTH_LIMIT = 512;

export type LayerPath =
  | { readonly kind: "entry"; readonly parts: readonly string[] }
  | { readonly kind: "whiteout"; readonly directory: readonly string[]; readonly name: string }
  | { readonly kind: "opaque"; readonly directory: readonly string[] }
  | { readonly kind: "ignored"; readonly why: string }
  | { readonly kind: "refused"; readonly why: string };

/** What an entry's path in a layer stands for. */
export function readLayerPath(path: string): LayerPath {
  const refused = (why: string): LayerPath => ({ kind: "refused", why });
  if (path.includes("\0")) return refused("its path contains a NUL");
  if (path.length > PATH_LIMIT) return refused(`its path has ${path.length} characters, at most ${PATH_LIMIT} are possible`);
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..")) return refused('its path contains "..": it could leave the image');
  if (parts.length > DEPTH_LIMIT) return refused(`it lies ${parts.length} directories deep, at most ${DEPTH_LIMIT} are followed`);
  const long = parts.find((part) => part.length > NAME_LIMIT);
  if (long !== undefined) return refused(`a name of ${long.length} characters, at most ${NAME_LIMIT} are possible`);
  const name = parts.at(-1);
  if (name === undefined || !parts.some((part) => part.startsWith(WHITEOUT))) return { kind: "entry", parts };
  const directory = parts.slice(0, -1);
  if (directory.some((part) => part.startsWith(WHITEOUT))) return name.startsWith(AUFS) || directory.some((part) => part.startsWith(AUFS)) ? { kind: "ignored", why: "AUFS bookkeeping" } : refused("it lies in a directory with a whiteout's name");
  if (name === OPAQUE) return { kind: "opaque", directory };
  if (name.startsWith(AUFS)) return { kind: "ignored", why: "AUFS bookkeeping" };
  const hidden = name.slice(WHITEOUT.length);
  if (hidden === "" || hidden === "." || hidden === "..") return refused("a whiteout that names nothing in its directory");
  return { kind: "whiteout", directory, name: hidden };
}
