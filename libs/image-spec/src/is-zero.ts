/** Whether all bytes are zero. Looks four bytes at a time where alignment allows: whole disks pass through here. */
export function isZero(data: Uint8Array): boolean {
  if (data[0] !== 0 || data[data.length - 1] !== 0) return data.length === 0;
  const aligned = data.byteOffset % 4 === 0 && data.length % 4 === 0;
  const words = aligned ? new Uint32Array(data.buffer, data.byteOffset, data.length / 4) : data;
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
  return true;
}
