import { UsageError } from "../cli-error.ts";

const FACTORS: Record<string, bigint> = { "": 1n, k: 1n << 10n, m: 1n << 20n, g: 1n << 30n };

/** "512M", "2G", "65536", "64KiB" → bytes. A bare number is bytes. */
export function parseBytes(text: string): bigint {
  const match = /^(\d{1,15})\s*([kmg]?)(i?b)?$/i.exec(text.trim());
  if (!match) throw new UsageError(`"${text}" is not an amount of bytes; expected a number with K, M or G, e.g. 512M`);
  const bytes = BigInt(match[1]!) * FACTORS[match[2]!.toLowerCase()]!;
  if (bytes === 0n) throw new UsageError(`"${text}" is nothing; expected an amount such as 512M`);
  return bytes;
}

/** Bytes in the largest binary unit that keeps it short: 268435456 → "256 MiB". */
export function formatBytes(bytes: bigint | number): string {
  let value = Number(bytes);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024 || unit === "GiB") return `${Number.isInteger(value) ? value : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return "";
}

/** A whole number between `min` and `max`. */
export function parseCount(text: string, what: string, min: number, max: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max) throw new UsageError(`${what} "${text}"; expected a whole number from ${min} to ${max}`);
  return value;
}

/** Seconds, fractions allowed. */
export function parseSeconds(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value <= 0 || value > 86_400) throw new UsageError(`"${text}" is not a time; expected seconds, e.g. 30 or 0.5`);
  return value;
}

/** Milliseconds as people read them: "12 ms", "3.4 s", "2 min 5 s", "3 h 2 min". */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** 1234567 → "1,234,567". */
export function formatCount(value: bigint | number): string {
  return value.toLocaleString("en-US");
}
