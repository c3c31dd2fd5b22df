import { spawnSync, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { Impairment, Network, NetworkMode, PublishRequest, type NetworkPort } from "@polyvisor/contracts/network";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { namespacesMissing, type Lines, type Namespace } from "./testing/namespaces.ts";
import { GATEWAY, NatRig } from "./testing/nat-rig.ts";
import { hashOf } from "./testing/traffic.ts";

/** 1 GiB by hand: PV_TRAFFIC_MB=1024. */
const BYTES = Number(process.env["PV_TRAFFIC_MB"] ?? 64) * 1024 * 1024;
const IMPAIRED_BYTES = process.env["PV_TRAFFIC_MB"] === undefined ? 16 * 1024 * 1024 : BYTES;
const SERVER = 9000;
const missing = namespacesMissing();
const noTcpdump = spawnSync("tcpdump", ["--version"]).error !== undefined;
if (!missing && noTcpdump) console.log("skipped: TCP options as a kernel sees them: needs tcpdump");
if (missing) console.log(`skipped: the NAT against a Linux kernel's stack ${missing}`);

describe.skipIf(missing !== undefined)("the NAT against a Linux kernel's stack", () => {
  let rig: NatRig;
  let guest: Namespace;
  let host: Namespace;
  let world: Namespace;
  let fabric: NetworkPort;
  let loopback: Lines;
  let outside: Lines;

  const flows = async () => (await fabric.listFlows({ machine: "" })).natFlows;
  const impair = (fields: Parameters<typeof Impairment.fromPartial>[0]) => fabric.setImpairment({ impairment: Impairment.fromPartial({ port: "peer/net0", ...fields }) });

  beforeAll(async () => {
    rig = await NatRig.start();
    ({ guest, host, world, fabric } = rig);
    host.run("ip", "route", "add", "unreachable", "198.51.100.1");
    loopback = await host.server(SERVER);
    outside = await world.server(SERVER);
  });
  afterAll(() => rig?.close());

  it("bytes arrive whole each way, from the host's loopback and from outside", async () => {
    const hash = hashOf(BYTES);
    for (const address of [GATEWAY, "192.0.2.2"]) {
      expect(await guest.client("down", address, SERVER, BYTES)).toEqual({ bytes: BYTES, hash });
      expect(await guest.client("up", address, SERVER, BYTES)).toEqual({ bytes: BYTES, hash });
    }
  });
  it.each([
    ["1 % loss", { loss: 0.01, seed: 7n }],
    ["reordering and 0.5 % loss", { reorder: 0.05, loss: 0.005, seed: 8n }],
    ["duplicates and corruption", { duplicate: 0.02, corrupt: 0.005, seed: 9n }],
  ])("and with %s on the guest's wire", async (_, fields) => {
    const hash = hashOf(IMPAIRED_BYTES);
    await impair(fields);
    try {
      expect(await guest.client("down", GATEWAY, SERVER, IMPAIRED_BYTES)).toEqual({ bytes: IMPAIRED_BYTES, hash });
      expect(await guest.client("up", GATEWAY, SERVER, IMPAIRED_BYTES)).toEqual({ bytes: IMPAIRED_BYTES, hash });
      const [{ counters } = { counters: undefined }] = (await fabric.listImpairments({})).impairments;
      expect([...counters!.values()].some((count) => count > 0n)).toBe(true);
    } finally {
      await impair({});
    }
  });

  it("closed port → connection refused; unreachable → EHOSTUNREACH, at once", async () => {
    expect(await guest.client("connect", GATEWAY, 1)).toEqual({ code: "ECONNREFUSED" });
    expect(await guest.client("connect", "192.0.2.2", 1)).toEqual({ code: "ECONNREFUSED" });
    expect(await guest.client("connect", "198.51.100.1", 80)).toEqual({ code: "EHOSTUNREACH" });
    expect(await guest.client("connect", "203.0.113.1", 80)).toEqual({ code: "ENETUNREACH" }); // the host has no route
  });
  it("half-close both ways: the server speaks after the client's end, the client after the server's", async () => {
    expect(await guest.client("late", GATEWAY, SERVER)).toEqual({ answer: "late 1000" });
    expect(await guest.client("early", GATEWAY, SERVER)).toEqual({ bytes: 5 });
    expect(await loopback.next("after-end")).toMatchObject({ bytes: 100_000, hash: hashOf(100_000) });
  });
  it("a reset is passed on as a reset, both ways", async () => {
    expect(await guest.client("reset-by-server", GATEWAY, SERVER)).toEqual({ code: "ECONNRESET" });
    await guest.client("reset-by-client", GATEWAY, SERVER);
    expect(await loopback.next("error")).toMatchObject({ code: "ECONNRESET" });
  });
  it.skipIf(noTcpdump)("window scale, timestamps and SACK only when offered", async () => {
    const opening = async (): Promise<string> => {
      const sniffer = guest.spawn("tcpdump", ["-i", rig.tap, "-n", "-c", "1", "-l", `tcp[tcpflags] = (tcp-syn|tcp-ack) and src port ${SERVER}`]);
      let text = "";
      sniffer.stdout!.on("data", (chunk) => (text += String(chunk)));
      await new Promise((resolve) => setTimeout(resolve, 1500)); // until it listens
      for (let i = 0; i < 20 && text === ""; i++) await guest.client("connect", GATEWAY, SERVER);
      return text;
    };
    const set = (value: number) => {
      for (const name of ["tcp_window_scaling", "tcp_timestamps", "tcp_sack"]) guest.run("sysctl", "-q", "-w", `net.ipv4.${name}=${value}`);
    };
    const offered = await opening();
    for (const option of ["mss 1460", "sackOK", "TS val", "wscale"]) expect(offered).toContain(option);
    set(0);
    try {
      const plain = await opening();
      expect(plain).toMatch(/mss 1460/);
      expect(plain).not.toMatch(/sackOK|TS val|wscale/);
      expect(await guest.client("down", GATEWAY, SERVER, 4_000_000)).toEqual({ bytes: 4_000_000, hash: hashOf(4_000_000) });
      await impair({ loss: 0.01, seed: 3n });
      expect(await guest.client("down", GATEWAY, SERVER, 1_000_000)).toEqual({ bytes: 1_000_000, hash: hashOf(1_000_000) });
      expect(await guest.client("up", GATEWAY, SERVER, 1_000_000)).toEqual({ bytes: 1_000_000, hash: hashOf(1_000_000) });
    } finally {
      await impair({});
      set(1);
    }
  });

  it("UDP: 60 KB there and back; a closed port → refused; one mapping for all destinations (RFC 4787, REQ-1)", async () => {
    expect(await guest.client("udp", GATEWAY, SERVER, 60_000)).toEqual({ bytes: 60_000, same: true });
    expect(await guest.client("udp", "192.0.2.2", SERVER, 60_000)).toEqual({ bytes: 60_000, same: true });
    expect(await guest.client("udp", GATEWAY, 1, 10)).toEqual({ code: "ECONNREFUSED" });
    outside.all.length = 0;
    expect(await guest.client("udp-two", "192.0.2.2", SERVER)).toEqual({ answers: 2 });
    const [one, two] = [await outside.next("udp"), await outside.next("udp-other")];
    expect(one["port"]).toBe(two["port"]);
  });

  it("500 connections at a time, each shown from both sides, and gone afterwards", async () => {
    const many = guest.start("many", GATEWAY, SERVER, 500);
    await many.next("open");
    const open = (await flows()).filter(({ state, protocol }) => protocol === "tcp" && state === "ESTABLISHED");
    expect(open.length).toBe(500);
    expect(open[0]).toMatchObject({ port: "peer/net0", guestRemote: `${GATEWAY}:${SERVER}`, hostRemote: `127.0.0.1:${SERVER}` });
    expect(open[0]!.hostLocal).toMatch(/^127\.0\.0\.1:\d+$/);
    many.go();
    expect(await many.last()).toEqual({ echoed: 500 });
    await expect.poll(async () => (await flows()).filter(({ state }) => state === "ESTABLISHED").length, { timeout: 20_000 }).toBe(0);
  });
  it("a server that never reads holds the guest back; the fabric keeps no more than its buffer", async () => {
    const before = memoryOf(rig.service);
    const stuffing = guest.start("stuff", GATEWAY, SERVER);
    const { stuffed } = await stuffing.next("stuffed");
    expect(Number(stuffed)).toBeLessThan(32 * 1024 * 1024); // the kernels' own buffers at both ends, and ours of 1 MiB
    expect(memoryOf(rig.service) - before).toBeLessThan(64 * 1024 * 1024);
    stuffing.go();
    await stuffing.last();
  });

  it("a forwarded port leads from outside to the guest; what is in use names its owner", async () => {
    const inGuest = await guest.server(8000);
    const request = PublishRequest.fromPartial({ machine: "peer", bind: "0.0.0.0", hostPort: 8080, guestPort: 8000, guestAddress: "10.0.2.15" });
    await fabric.publish(request);
    await fabric.publish({ ...request, protocol: "udp" });
    expect(await world.client("down", "192.0.2.1", 8080, 3_000_000)).toEqual({ bytes: 3_000_000, hash: hashOf(3_000_000) });
    expect(await world.client("up", "192.0.2.1", 8080, 3_000_000)).toEqual({ bytes: 3_000_000, hash: hashOf(3_000_000) });
    expect(await world.client("udp", "192.0.2.1", 8080, 20_000)).toEqual({ bytes: 20_000, same: true });
    expect(await world.client("reset-by-server", "192.0.2.1", 8080)).toEqual({ code: "ECONNRESET" });
    await expect(fabric.publish({ ...request, bind: "127.0.0.1", hostPort: SERVER })).rejects.toThrow(/in use by .*process \d+/);
    inGuest.child.kill();
  });
  it("killed and started again: networks, ports, leases and forwards are back", async () => {
    await fabric.createNetwork({ network: Network.fromPartial({ name: "lab", mode: NetworkMode.NAT_NETWORK, subnet: "10.9.0.0/24" }) });
    const before = (await fabric.listForwards({ machine: "peer" })).forwards.map(({ id }) => id);
    await rig.killFabric();
    await rig.startFabric();
    ({ fabric } = rig);
    expect((await fabric.listNetworks({})).networks.map(({ name }) => name)).toEqual(expect.arrayContaining(["nat", "lab"]));
    await expect.poll(async () => (await fabric.listForwards({ machine: "peer" })).forwards.map(({ id, problem }) => [id, problem])).toEqual(before.map((id) => [id, ""]));
    rig.plugIn();
    const inGuest = await guest.server(8000);
    expect(await world.client("down", "192.0.2.1", 8080, 1000)).toEqual({ bytes: 1000, hash: hashOf(1000) });
    expect(await guest.client("down", GATEWAY, SERVER, 1_000_000)).toEqual({ bytes: 1_000_000, hash: hashOf(1_000_000) });
    inGuest.child.kill();
  });
});

/** Resident bytes of a process that runs under `ip netns exec`, which becomes it. */
function memoryOf({ pid }: ChildProcess): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) * 1024;
}
