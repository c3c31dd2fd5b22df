import type { MediationPoint } from "./chain.ts";

/** What two machines that do the same need not share: names, and the numbers that tell which answer is whose. */
const NAMES = new Set(["machine", "disk", "port", "id"]);

/**
 * A digest of messages: equal when each method's requests, and its responses, were the same in the same order. How those of different methods
 * lay between each other does not count: that is up to the processes that they pass. For comparing runs, not against forgery.
 */
export class MessageDigest {
  readonly #points = new Map<string, Hash>();

  add({ service, method, direction }: MediationPoint, message: unknown): void {
    const name = `${service}.${method} ${direction}`;
    let hash = this.#points.get(name);
    if (!hash) {
      this.#points.set(name, (hash = new Hash()));
      hash.text(name);
    }
    hash.value(message);
  }

  /** 16 hex digits; what {@link joinDigests} makes of parts is what one digest of all would be. */
  toString(): string {
    return joinDigests([...this.#points.values()].map(String));
  }
}

/** The digest of messages that passed different chains. */
export function joinDigests(digests: readonly string[]): string {
  const sum = digests.reduce((total, digest) => total + BigInt(`0x${digest || "0"}`), 0n);
  return BigInt.asUintN(64, sum).toString(16).padStart(16, "0");
}

/** Two lanes of FNV-1a (32 bits), with different primes. */
class Hash {
  #low = 0x811c_9dc5;
  #high = 0x1b87_3593;

  /** Fields in the order of their names, those at their default left out: what an object that came over a wire has as well. */
  value(value: any): void {
    if (value instanceof Uint8Array) {
      this.#word(value.length);
      for (const byte of value) this.#word(byte);
    } else if (Array.isArray(value)) {
      this.#word(value.length);
      for (const each of value) this.value(each);
    } else if (value instanceof Map) this.value([...value].toSorted(([a], [b]) => (a < b ? -1 : 1)));
    else if (typeof value === "object" && value !== null) {
      for (const name of Object.keys(value).toSorted()) {
        if (NAMES.has(name) || isDefault(value[name])) continue;
        this.text(name);
        this.value(value[name]);
      }
      this.#word(0x100);
    } else if (typeof value === "bigint") {
      this.#word(Number(value & 0xffff_ffffn));
      this.#word(Number((value >> 32n) & 0xffff_ffffn));
    } else this.text(String(value));
  }
  text(text: string): void {
    this.#word(text.length);
    for (let index = 0; index < text.length; index++) this.#word(text.charCodeAt(index));
  }
  toString(): string {
    return ((BigInt(this.#high >>> 0) << 32n) | BigInt(this.#low >>> 0)).toString(16);
  }

  #word(word: number): void {
    this.#low = Math.imul(this.#low ^ word, 0x0100_0193);
    this.#high = Math.imul(this.#high ^ word ^ (this.#high >>> 15), 0x85eb_ca6b);
  }
}

function isDefault(value: unknown): boolean {
  return !value || ((value instanceof Uint8Array || Array.isArray(value)) && value.length === 0) || (value instanceof Map && value.size === 0);
}
