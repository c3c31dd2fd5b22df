import { AnswerStatus, ExitKind, POST_DATA_BYTES } from "../mailbox.ts";
import { SbiError, type SbiContext, type SbiExtension } from "./extension.ts";

/** Bytes moved by one call; the guest calls again for the rest, as the specification expects. */
const MOST = POST_DATA_BYTES;

/** Debug Console (SBI 2.0, chapter 12). */
export const debugConsole: SbiExtension = {
  id: 0x4442_434e,
  counts: "sbi-dbcn",
  call(context, fid, args) {
    // args: num_bytes, base_addr_lo, base_addr_hi (of no use with 64-bit addresses, but must be 0)
    switch (fid) {
      case 0: { // console_write
        if (args[2] !== 0n) return { error: SbiError.INVALID_PARAM };
        const bytes = context.mailbox.postData().subarray(0, Number(args[0]! < BigInt(MOST) ? args[0]! : BigInt(MOST)));
        if (!context.memory.read(args[1]!, bytes)) return { error: SbiError.INVALID_PARAM };
        if (bytes.length > 0) context.mailbox.call(ExitKind.CONSOLE_WRITE, bytes.length, 0n, 0n);
        return { error: 0n, value: BigInt(bytes.length) };
      }
      case 1: { // console_read
        if (args[2] !== 0n) return { error: SbiError.INVALID_PARAM };
        const most = Number(args[0]! < BigInt(MOST) ? args[0]! : BigInt(MOST));
        // Looked at first: input that has been read must have a place.
        if (!context.memory.read(args[1]!, new Uint8Array(most))) return { error: SbiError.INVALID_PARAM };
        const data = consoleInput(context, most);
        if (!data) return { error: SbiError.FAILED };
        if (!context.memory.write(args[1]!, data)) return { error: SbiError.INVALID_PARAM };
        return { error: 0n, value: BigInt(data.length) };
      }
      case 2: // console_write_byte
        context.mailbox.post(ExitKind.CONSOLE_BYTE, 1, 0n, args[0]! & 0xffn);
        return { error: 0n };
      default: return undefined;
    }
  },
};

function consoleInput(context: SbiContext, most: number): Uint8Array | undefined {
  if (most === 0) return new Uint8Array(0);
  const status = context.mailbox.call(ExitKind.CONSOLE_READ, most, 0n, 0n);
  return status === AnswerStatus.OK ? context.mailbox.answerData().slice(0, most) : undefined;
}

/** The legacy console calls (SBI 2.0, chapter 5), which some small kernels still use. */
export const legacyConsole: readonly SbiExtension[] = [
  {
    id: 0x01, // sbi_console_putchar
    counts: "sbi-legacy",
    call(context, _fid, args) {
      context.mailbox.post(ExitKind.CONSOLE_BYTE, 1, 0n, args[0]! & 0xffn);
      return { error: 0n, legacy: true };
    },
  },
  {
    id: 0x02, // sbi_console_getchar: the byte, or -1
    counts: "sbi-legacy",
    call(context) {
      const data = consoleInput(context, 1);
      return { error: data && data.length > 0 ? BigInt(data[0]!) : -1n, legacy: true };
    },
  },
  {
    id: 0x08, // sbi_shutdown
    counts: "sbi-legacy",
    call(context) {
      context.mailbox.post(ExitKind.SYSTEM_RESET, 0, 0n, 0n);
      return { error: 0n, legacy: true };
    },
  },
];
