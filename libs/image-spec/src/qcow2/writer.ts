import type { DiskSource } from "../chunked-disk-writer.ts";
import { isZero } from "../is-zero.ts";
import { COPIED, QCOW2_HEADER_BYTES, QCOW2_MAGIC } from "./header.ts";

/** QEMU's default. */
const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 2 ** CLUSTER_BITS;
const L2_ENTRIES = CLUSTER_BYTES / 8;
/** refcount_order 4: 16 bits each. */
const REFCOUNTS_PER_BLOCK = CLUSTER_BYTES / 2;

/**
 * A disk as a qcow2 file, version 3, in the order of its bytes, so that it can go down a stream: header, refcounts, L1, L2
 * tables, then the clusters that are not zero, by position. `mayHold` lists ascending clusters of 64 KiB that may not be zero; the
 * disk is read twice.
 */
export async function* writeQcow2(disk: DiskSource, mayHold?: AsyncIterable<number> | Iterable<number>): AsyncGenerator<Uint8Array> {
  const held: number[] = [];
  for await (const cluster of mayHold ?? range(Math.ceil(disk.bytes / CLUSTER_BYTES))) {
    if (!isZero(await readCluster(disk, cluster))) held.push(cluster);
  }
  const tables = [...new Set(held.map((cluster) => Math.floor(cluster / L2_ENTRIES)))];
  const l1Entries = Math.ceil(disk.bytes / (CLUSTER_BYTES * L2_ENTRIES));
  const l1Clusters = Math.ceil((l1Entries * 8) / CLUSTER_BYTES);
  const others = 1 + l1Clusters + tables.length + held.length;
  const { tableClusters, blocks } = refcountClusters(others);
  const l1At = 1 + tableClusters + blocks;
  const l2At = l1At + l1Clusters;
  const dataAt = l2At + tables.length;
  const total = others + tableClusters + blocks;

  yield header({ size: disk.bytes, l1Entries, l1Offset: l1At * CLUSTER_BYTES, tableClusters });
  yield bigEndian64(tableClusters, blocks, (i) => BigInt((1 + tableClusters + i) * CLUSTER_BYTES));
  for (let block = 0; block < blocks; block++) {
    const counts = new Uint8Array(CLUSTER_BYTES);
    const used = Math.min(REFCOUNTS_PER_BLOCK, total - block * REFCOUNTS_PER_BLOCK);
    for (let i = 0; i < used; i++) counts[2 * i + 1] = 1;
    yield counts;
  }
  const l1 = new Map(tables.map((table, i) => [table, COPIED | BigInt((l2At + i) * CLUSTER_BYTES)]));
  yield bigEndian64(l1Clusters, l1Entries, (i) => l1.get(i) ?? 0n);
  let next = 0;
  for (const table of tables) {
    const entries = new Map<number, bigint>();
    for (; next < held.length && Math.floor((held[next] as number) / L2_ENTRIES) === table; next++) {
      entries.set((held[next] as number) % L2_ENTRIES, COPIED | BigInt((dataAt + next) * CLUSTER_BYTES));
    }
    yield bigEndian64(1, L2_ENTRIES, (i) => entries.get(i) ?? 0n);
  }
  for (const cluster of held) yield readCluster(disk, cluster);
}

/** Refcount blocks count themselves and their table too. */
function refcountClusters(others: number): { tableClusters: number; blocks: number } {
  let tableClusters = 1;
  let blocks = 1;
  for (;;) {
    const needed = Math.ceil((others + tableClusters + blocks) / REFCOUNTS_PER_BLOCK);
    const table = Math.ceil((needed * 8) / CLUSTER_BYTES);
    if (needed <= blocks && table <= tableClusters) return { tableClusters, blocks };
    [blocks, tableClusters] = [Math.max(needed, blocks), Math.max(table, tableClusters)];
  }
}

function header(parts: { size: number; l1Entries: number; l1Offset: number; tableClusters: number }): Uint8Array {
  const bytes = new Uint8Array(CLUSTER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, QCOW2_MAGIC);
  view.setUint32(4, 3);
  view.setUint32(20, CLUSTER_BITS);
  view.setBigUint64(24, BigInt(parts.size));
  view.setUint32(36, parts.l1Entries);
  view.setBigUint64(40, BigInt(parts.l1Offset));
  view.setBigUint64(48, BigInt(CLUSTER_BYTES)); // the refcount table follows the header
  view.setUint32(56, parts.tableClusters);
  view.setUint32(96, 4); // refcount_order
  view.setUint32(100, QCOW2_HEADER_BYTES); // then, all zero, the end of header extensions
  return bytes;
}

function bigEndian64(clusters: number, count: number, value: (i: number) => bigint): Uint8Array {
  const bytes = new Uint8Array(clusters * CLUSTER_BYTES);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i++) view.setBigUint64(i * 8, value(i));
  return bytes;
}

async function readCluster(disk: DiskSource, cluster: number): Promise<Uint8Array> {
  const target = new Uint8Array(CLUSTER_BYTES);
  const bytes = Math.min(CLUSTER_BYTES, disk.bytes - cluster * CLUSTER_BYTES);
  await disk.read(cluster * CLUSTER_BYTES, target.subarray(0, bytes));
  return target;
}

function* range(count: number): Generator<number> {
  for (let i = 0; i < count; i++) yield i;
}
