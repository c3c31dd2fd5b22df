/** Numbers and bytes as GDB's remote protocol writes them. Anything malformed is undefined. */

export function hexOfBytes(bytes: Uint8Array): string {
  return bytes.toHex();
}
export function bytesOfHex(text: string): Uint8Array | undefined {
  return text.length % 2 === 0 && /^[0-9a-fA-F]*$/.test(text) ? Uint8Array.fromHex(text) : undefined;
}
/** A number, most significant digit first (addresses, lengths). */
export function numberOfHex(text: string | undefined): bigint | undefined {
  return text !== undefined && /^[0-9a-fA-F]{1,16}$/.test(text) ? BigInt(`0x${text}`) : undefined;
}
/** A register: bytes in target order. */
export function hexOfRegister(value: bigint): string {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
  return bytes.toHex();
}
export function registerOfHex(text: string): bigint | undefined {
  const bytes = bytesOfHex(text);
  return bytes?.length === 8 ? new DataView(bytes.buffer).getBigUint64(0, true) : undefined;
}
/** "address,length" with at most `most` bytes. */
export function rangeOfHex(text: string, most: number): { address: bigint; length: number } | undefined {
  const [first, second, ...rest] = text.split(",");
  const address = numberOfHex(first);
  const length = numberOfHex(second);
  if (address === undefined || length === undefined || rest.length > 0 || length > BigInt(most)) return undefined;
  return { address, length: Number(length) };
}
export const latin1 = {
  text: (bytes: Uint8Array): string => {
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return text;
  },
  bytes: (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0) & 255),
};
