import { readFileSync } from "node:fs";
import { CliError } from "./cli-error.ts";

/** Names of code addresses, from System.map, /proc/kallsyms or `nm`: "address type name" a line. */
export class Symbols {
  readonly #addresses: bigint[];
  readonly #names: string[];

  constructor(text: string) {
    const entries = text
      .split("\n")
      .flatMap((line) => {
        const match = /^([0-9a-fA-F]{1,16}) ([a-zA-Z]) (\S+)/.exec(line);
        return match && "tTwW".includes(match[2]!) ? [{ address: BigInt(`0x${match[1]!}`), name: match[3]! }] : [];
      })
      .toSorted((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
    this.#addresses = entries.map(({ address }) => address);
    this.#names = entries.map(({ name }) => name);
  }
  static read(file: string | undefined): Symbols {
    if (file === undefined) return new Symbols("");
    try {
      const symbols = new Symbols(readFileSync(file, "utf8"));
      if (symbols.#names.length > 0) return symbols;
    } catch (error) {
      throw new CliError(`symbols: cannot read ${file}: ${(error as Error).message}`);
    }
    throw new CliError(`symbols: ${file} has no lines such as "ffffffff80001000 T schedule"; take System.map, or hv exec M -- cat /proc/kallsyms > ${file}`);
  }

  /** "schedule+0x1c"; empty where nothing is known within 1 MiB below. */
  name(address: bigint): string {
    let [low, high] = [0, this.#addresses.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#addresses[middle]! <= address) low = middle + 1;
      else high = middle;
    }
    const start = this.#addresses[low - 1];
    if (start === undefined || address - start > 0x10_0000n) return "";
    return address === start ? this.#names[low - 1]! : `${this.#names[low - 1]}+0x${(address - start).toString(16)}`;
  }
}
