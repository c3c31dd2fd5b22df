import { once } from "node:events";
import { createSocket } from "node:dgram";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Network, NetworkMode, Port, type NetworkPort } from "@polyvisor/contracts/network";
import { mediated } from "@polyvisor/contracts";
import { NETWORK } from "@polyvisor/contracts/network";
import { testContext } from "@polyvisor/testkit";
import { MAC_BROADCAST, emitEthernet } from "@polyvisor/wire";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { createService, DEFAULT_CONFIG } from "../index.ts";
import { frameForQemu, QemuDeframer } from "./qemu-framing.ts";

const frame = (byte: number, source = 0x525400990001): Uint8Array => emitEthernet({ destination: MAC_BROADCAST, source, etherType: 0x88b5, payload: new Uint8Array(46).fill(byte) });

describe("ports for QEMU", () => {
  const directory = mkdtempSync(join(tmpdir(), "pv-qemu-"));
  let fabric: NetworkPort;
  let close: () => Promise<void>;
  beforeEach(async () => {
    const service = await createService(DEFAULT_CONFIG, {}, testContext());
    fabric = mediated(NETWORK, service.implementation);
    close = () => service.close();
    await fabric.createNetwork({ network: Network.fromPartial({ name: "lan", mode: NetworkMode.INTERNAL }) });
  });
  afterEach(() => close());
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const plug = (id: string, peer: string) => fabric.createPort({ port: Port.fromPartial({ id, machine: "peer", network: "lan", peer }) });
  /** QEMU's side of a stream port. */
  async function qemu(path: string) {
    const frames: Uint8Array[] = [];
    const deframer = new QemuDeframer(2000);
    let socket: Socket;
    for (;;) {
      socket = connect(path);
      if (await Promise.race([once(socket, "connect").then(() => true), once(socket, "error").then(() => false, () => false)])) break;
    }
    socket.on("data", (chunk: Uint8Array) => void frames.push(...deframer.push(chunk)!)).on("error", () => {});
    return { frames, socket, closed: once(socket, "close") };
  }

  it("stream: two of them meet on a network; link down stops frames; a second connection takes the port over; the socket goes with it", async () => {
    const [pathA, pathB] = [join(directory, "a.sock"), join(directory, "b.sock")];
    await plug("peer/a", `qemu-stream:${pathA}`);
    await plug("peer/b", `qemu-stream:${pathB}`);
    const [a, b] = [await qemu(pathA), await qemu(pathB)];
    const { rx } = await counted("peer/a");
    a.socket.write(frameForQemu(frame(1)));
    await expect.poll(() => b.frames.length).toBe(1);
    expect(b.frames[0]).toEqual(frame(1));
    expect((await counted("peer/a")).rx).toBe(rx + 1n);
    await fabric.setLink({ port: "peer/b", up: false });
    a.socket.write(frameForQemu(frame(2)));
    await expect.poll(async () => (await counted("peer/a")).rx).toBe(rx + 2n);
    await fabric.setLink({ port: "peer/b", up: true });
    a.socket.write(frameForQemu(frame(3)));
    await expect.poll(() => b.frames.length).toBe(2);
    expect(b.frames[1]).toEqual(frame(3));
    const second = await qemu(pathB);
    await b.closed;
    a.socket.write(frameForQemu(frame(4)));
    await expect.poll(() => second.frames.length).toBe(1);
    await fabric.deletePort({ id: "peer/b" });
    await second.closed;
  });
  it("stream: a length that no frame has ends the connection, and the next one works", async () => {
    const path = join(directory, "c.sock");
    await plug("peer/c", `qemu-stream:${path}`);
    const bad = await qemu(path);
    bad.socket.write(Uint8Array.of(0xff, 0xff, 0xff, 0xff, 1));
    await bad.closed;
    const good = await qemu(path);
    good.socket.write(frameForQemu(frame(1)));
    await expect.poll(async () => (await counted("peer/c")).rx).toBe(1n);
  });
  it("dgram: one frame is one UDP datagram of the loopback; those from another port are not heard", async () => {
    const [ours, stranger] = [createSocket("udp4"), createSocket("udp4")];
    const heard: Uint8Array[] = [];
    ours.on("message", (data) => void heard.push(new Uint8Array(data)));
    for (const socket of [ours, stranger]) await new Promise<void>((resolve) => void socket.bind(0, "127.0.0.1", resolve));
    const free = createSocket("udp4");
    await new Promise<void>((resolve) => void free.bind(0, "127.0.0.1", resolve));
    const local = free.address().port;
    await new Promise<void>((resolve) => void free.close(() => resolve()));
    await plug("peer/d", `qemu-dgram:${local}:${ours.address().port}`);
    const path = join(directory, "e.sock");
    await plug("peer/e", `qemu-stream:${path}`);
    const other = await qemu(path);
    stranger.send(frame(9), local, "127.0.0.1");
    ours.send(frame(5), local, "127.0.0.1");
    await expect.poll(() => other.frames.length).toBe(1);
    expect(other.frames[0]).toEqual(frame(5));
    other.socket.write(frameForQemu(frame(6, 0x525400990002)));
    await expect.poll(() => heard.length).toBe(1);
    expect(heard[0]).toEqual(frame(6, 0x525400990002));
    for (const socket of [ours, stranger]) socket.close();
  });
  it("peers that cannot be are refused by name", async () => {
    await expect(plug("peer/x", "qemu-stream:relative")).rejects.toThrow(/give qemu-stream:\/PATH/);
    await expect(plug("peer/x", "qemu-stream:/no/such/place/q.sock")).rejects.toThrow(/no directory \/no\/such\/place/);
    await expect(plug("peer/x", "qemu-dgram:0:70000")).rejects.toThrow(/1 to 65535/);
    await expect(plug("peer/x", `qemu-stream:/${"a".repeat(200)}`)).rejects.toThrow(/too long for a socket/);
    expect((await fabric.listPorts({ machine: "peer" })).ports).toEqual([]);
  });
  async function counted(id: string): Promise<{ rx: bigint }> {
    const { counters } = await fabric.readNetworkStats({ machine: "peer", network: "" });
    return { rx: counters.get(`${id}.rx_frames`)! };
  }
});
