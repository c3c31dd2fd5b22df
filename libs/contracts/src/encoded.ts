import { BinaryWriter } from "@bufbuild/protobuf/wire";

/** A larger buffer is not kept: block writes and page grants of a megabyte fit. */
const KEPT_BYTES = 2 * 1024 * 1024;

let spare: BinaryWriter | undefined;

/**
 * A message's bytes. One writer, whose buffer has grown to what messages take, serves all: ts-proto's own serializers begin
 * a small one for each message, double it until the message fits, and copy the result twice.
 */
export function encoded<T>(type: { encode(message: T, writer: BinaryWriter): BinaryWriter }, message: T): Buffer {
  const writer = spare ?? new BinaryWriter();
  spare = undefined; // an error would leave half a message in it
  const { buffer, byteOffset, length } = type.encode(message, writer).finish();
  if (length <= KEPT_BYTES) spare = writer;
  return Buffer.from(buffer, byteOffset, length);
}
