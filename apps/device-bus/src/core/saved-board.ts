import { ContractError, decodeSaved, encodeSaved } from "@polyvisor/contracts";
import { SavedBoard, SavedPlic, SavedRtc, SavedUart } from "@polyvisor/contracts/device";
import type { BoardPlan } from "./board-request.ts";

/** The blob of SaveBoard (device.proto, SavedBoard). It comes back from a file that anybody can have written. */
const FORMAT = { magic: "PVBOARD", version: 1, operation: "restoreBoard" } as const;
/** Rings, inputs and registers of a full board have less than 1 MiB. */
export const MAX_SAVED_BOARD_BYTES = 4 * 1024 * 1024;

export function encodeSavedBoard(saved: SavedBoard): Uint8Array {
  return encodeSaved(FORMAT, SavedBoard.encode(saved).finish());
}

type Whole = SavedBoard & { plic: SavedPlic; uart: SavedUart; rtc: SavedRtc };
interface Slot {
  readonly id: string;
  readonly deviceId: number;
  readonly shape: { readonly mac: Uint8Array; readonly sectors: bigint; readonly readOnly: boolean };
}

/** Throws `corrupt` for what is damaged, `invalid` for a state of another version or of a board of another shape. */
export function decodeSavedBoard(blob: Uint8Array, { machine, harts, ramBase, ramBytes }: BoardPlan, slots: readonly Slot[], consoles: readonly string[]): Whole {
  const refuse = (what: string): ContractError => new ContractError("invalid", `restore board ${machine}: the state is of another machine: ${what}`);
  if (blob.length > MAX_SAVED_BOARD_BYTES) throw refuse(`${blob.length} bytes, at most ${MAX_SAVED_BOARD_BYTES}`);
  const saved = decodeSaved(FORMAT, blob, (payload) => SavedBoard.decode(payload));
  const { plic, uart, rtc } = saved;
  if (!plic || !uart || !rtc) throw refuse("it has no interrupt controller, serial port or clock");
  if (saved.harts !== harts) throw refuse(`${saved.harts} harts, this one has ${harts}`);
  if (saved.ramBase !== ramBase || saved.ramBytes !== ramBytes) throw refuse(`${saved.ramBytes} bytes of RAM at 0x${saved.ramBase.toString(16)}, this one has ${ramBytes}`);
  const names = saved.virtio.map(({ id }) => id).join(", ");
  if (names !== slots.map(({ id }) => id).join(", ")) throw refuse(`its devices are ${names || "none"}; here they are ${slots.map(({ id }) => id).join(", ") || "none"}`);
  for (const [index, { id, deviceId, shape }] of slots.entries()) {
    const { deviceId: savedId, mac, sectors, readOnly } = saved.virtio[index]!;
    if (savedId !== deviceId) throw refuse(`${id} is device ${savedId}, here ${deviceId}`);
    if (sectors !== shape.sectors || readOnly !== shape.readOnly) throw refuse(`${id} has ${sectors} sectors${readOnly ? " to read" : ""}, here ${shape.sectors}`);
    if (String(mac) !== String(shape.mac)) throw refuse(`${id} has MAC address ${macText(mac)}, here ${macText(shape.mac)}`);
  }
  const unknown = saved.consoles.find(({ name }) => !consoles.includes(name));
  if (unknown) throw refuse(`a console ${JSON.stringify(unknown.name.slice(0, 40))}`);
  return { ...saved, plic, uart, rtc };
}

function macText(mac: Uint8Array): string {
  return [...mac.subarray(0, 6)].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
