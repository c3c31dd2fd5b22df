import type { Privileged } from "../privileged.ts";
import { Csr } from "../csr.ts";
import { walkPages, type Walk } from "./page-walk.ts";
import type { DebugTarget } from "./target.ts";

/** Memory as the program on one hart sees it (or physical), read and written from outside. */
export class GuestView {
  readonly #target: DebugTarget;
  constructor(target: DebugTarget) {
    this.#target = target;
  }

  walk(hart: Privileged, address: bigint): Promise<Walk> {
    return walkPages(address, hart.cells.csr(Csr.SATP), hart.privilege, async (at) => {
      const bytes = await this.#target.readPhysical(at, 8);
      return bytes && new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
    });
  }

  /** As many bytes as there are from `address` on, up to `length`. `hart` undefined: physical. */
  async read(hart: Privileged | undefined, address: bigint, length: number): Promise<Uint8Array> {
    const result = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const part = await this.#part(hart, address + BigInt(done), length - done);
      const data = part && (await this.#target.readPhysical(part.physical, part.length));
      if (!data) break;
      result.set(data, done);
      done += part.length;
    }
    return result.subarray(0, done);
  }

  /** False: some of it is not mapped; pages before that have been written. */
  async write(hart: Privileged | undefined, address: bigint, data: Uint8Array): Promise<boolean> {
    for (let done = 0; done < data.length; ) {
      const part = await this.#part(hart, address + BigInt(done), data.length - done);
      if (!part || !(await this.#target.writePhysical(part.physical, data.subarray(done, done + part.length)))) return false;
      done += part.length;
    }
    return true;
  }

  async #part(hart: Privileged | undefined, address: bigint, length: number): Promise<{ physical: bigint; length: number } | undefined> {
    const at = BigInt.asUintN(64, address);
    const physical = hart ? (await this.walk(hart, at)).physical : at;
    if (physical === undefined) return undefined;
    return { physical, length: Math.min(length, 4096 - Number(at & 4095n)) };
  }
}
