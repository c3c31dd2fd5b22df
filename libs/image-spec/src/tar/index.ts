export { TarError } from "./byte-source.ts";
export { readTar, type TarEntry, type TarHeader, type TarKind } from "./read-tar.ts";
export { tarEnd, tarFileHeader, tarPadding } from "./write-tar.ts";
