/** What the cases of image-registry use to talk to it: uploads, a Blocks stream with answers by id, comparisons. */
import assert from "node:assert/strict";
import { ContractError, messages, type Channel, type Condition } from "@polyvisor/contracts";
import { BlockRequest, BlockStatus, Box, Descriptor, Disk, type IMAGE, type BlockResponse, type ImagePort, type WriteBlobResponse } from "@polyvisor/contracts/image";
import type { ConformanceCase, ConformanceEnvironment } from "../suite.ts";

export const SECTOR = 512;
export const WAIT_MS = 10_000;

export async function digestOf(data: Uint8Array): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data as Uint8Array<ArrayBuffer>));
  return `sha256:${[...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** Whichever kind of array the adapter gives. */
export function same(got: Uint8Array, expected: Uint8Array): void {
  const at = got.findIndex((byte, i) => byte !== expected[i]);
  assert.ok(at < 0, `byte ${at} of ${got.length} is ${got[at]}, expected ${expected[at]}`);
  assert.equal(got.length, expected.length);
}

/** Bytes that no other case writes. */
export function content(unique: string, length: number): Uint8Array {
  const seed = new TextEncoder().encode(unique);
  return Uint8Array.from({ length }, (_, i) => (i < seed.length ? (seed[i] as number) : (i * 31 + (i >> 8)) & 0xff));
}

export async function refused(call: Promise<unknown>, condition: Condition): Promise<void> {
  const error = await call.then(
    () => assert.fail(`succeeded; expected "${condition}"`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ContractError, String(error));
  assert.equal(error.condition, condition, error.message);
}

export interface Upload {
  readonly digest?: string;
  readonly size?: number;
  readonly pieces: readonly Uint8Array[];
  readonly finish?: boolean;
}

export async function upload(port: ImagePort, environment: ConformanceEnvironment, { digest = "", size = 0, pieces, finish = true }: Upload): Promise<WriteBlobResponse> {
  const channel = port.writeBlob();
  const answer = (async () => {
    for await (const response of messages(channel as unknown as Channel<never, WriteBlobResponse>)) return response;
    throw new ContractError("unavailable", "the stream ended without an answer");
  })();
  for (const [i, data] of pieces.entries()) channel.send({ digest, size: BigInt(size), data, finish: finish && i === pieces.length - 1 });
  if (!finish) channel.close();
  return environment.within(WAIT_MS, answer, "answer to writeBlob");
}

export async function store(port: ImagePort, environment: ConformanceEnvironment, data: Uint8Array): Promise<Descriptor> {
  const { digest, bytes } = await upload(port, environment, { pieces: [data] });
  return Descriptor.fromPartial({ digest, size: bytes });
}

export async function download(port: ImagePort, digest: string, offset = 0n, length = 0n): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const { data } of messages(port.readBlob({ digest, offset, length }))) pieces.push(data);
  return new Uint8Array(pieces.flatMap((piece) => [...piece]));
}

export type Operation = NonNullable<BlockRequest["operation"]>;

/** A Blocks stream with answers by id. */
export class Blocks {
  readonly #channel: Channel<BlockRequest, BlockResponse>;
  readonly #environment: ConformanceEnvironment;
  readonly #disk: string;
  readonly #waiting = new Map<bigint, (response: BlockResponse) => void>();
  readonly closed: Promise<ContractError | undefined>;
  #nextId = 1n;

  constructor(port: ImagePort, environment: ConformanceEnvironment, disk: string) {
    this.#channel = port.blocks();
    this.#environment = environment;
    this.#disk = disk;
    this.#channel.onMessage((response) => {
      const waiting = this.#waiting.get(response.id);
      assert.ok(waiting, `answer ${response.id} to nothing, or a second one`);
      this.#waiting.delete(response.id);
      waiting(response);
    });
    this.closed = new Promise((resolve) => this.#channel.onClose(resolve));
  }
  send(operation: Operation): Promise<BlockResponse> {
    const id = this.#nextId++;
    const answer = new Promise<BlockResponse>((resolve) => this.#waiting.set(id, resolve));
    this.#channel.send(BlockRequest.fromPartial({ machine: "conformance", disk: this.#disk, id, operation }));
    const ended = this.closed.then((error) => Promise.reject(error ?? new Error("the stream ended")));
    return this.#environment.within(WAIT_MS, Promise.race([answer, ended]), `answer to ${operation.$case}`);
  }
  open(readOnly = false): Promise<BlockResponse> {
    return this.send({ $case: "open", value: { readOnly } });
  }
  async read(sector: number, sectors: number): Promise<Uint8Array> {
    const response = await this.send({ $case: "read", value: { sector: BigInt(sector), sectors } });
    assert.equal(response.status, BlockStatus.OK);
    return response.data;
  }
  async status(operation: Operation): Promise<BlockStatus> {
    return (await this.send(operation)).status;
  }
  async write(sector: number, data: Uint8Array): Promise<void> {
    assert.equal(await this.status(writeOf(sector, data)), BlockStatus.OK);
  }
  async flush(): Promise<void> {
    assert.equal(await this.status({ $case: "flush", value: {} }), BlockStatus.OK);
  }
  async close(): Promise<void> {
    this.#channel.close();
    await this.closed;
  }
}

export const writeOf = (sector: number, data: Uint8Array): Operation => ({ $case: "write", value: { sector: BigInt(sector), data } });
export const filled = (sectors: number, value: number): Uint8Array => new Uint8Array(sectors * SECTOR).fill(value);
export const diskOf = (id: string, sectors: number, baseDigest = ""): { disk: Disk } => ({ disk: Disk.fromPartial({ id, baseDigest, bytes: BigInt(sectors * SECTOR) }) });

export async function opened(port: ImagePort, environment: ConformanceEnvironment, sectors: number, baseDigest = ""): Promise<{ id: string; blocks: Blocks }> {
  const id = environment.unique("disk");
  await port.createDisk(diskOf(id, sectors, baseDigest));
  const blocks = new Blocks(port, environment, id);
  assert.equal((await blocks.open()).diskBytes, BigInt(sectors * SECTOR));
  return { id, blocks };
}

export async function boxOf(port: ImagePort, environment: ConformanceEnvironment, fields: Partial<Box> = {}): Promise<Box> {
  const name = environment.unique("box").toLowerCase();
  const kernel = await store(port, environment, content(`kernel of ${name}`, 100));
  return Box.fromPartial({ name, tag: "1", kernel, config: { bootArguments: "quiet", memoryBytes: 1n << 27n, harts: 1, agentConsole: "hvc0" }, ...fields });
}

export type ImageCase = ConformanceCase<typeof IMAGE.definition>;
