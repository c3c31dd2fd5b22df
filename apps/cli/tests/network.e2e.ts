import { createSocket } from "node:dgram";
import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildBox } from "@polyvisor/boxes";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { removeStale } from "../src/net/check/outside.ts";
import { Hv } from "./hv.ts";

const missing = (...programs: string[]): string[] => programs.filter((program) => spawnSync("sh", ["-c", `command -v ${program} || [ -x /usr/sbin/${program} ]`]).status !== 0);
const isRoot = process.platform === "linux" && process.getuid?.() === 0 && existsSync("/dev/net/tun");
const noPrivileges = isRoot ? missing("ip") : ["root on Linux with /dev/net/tun"];
if (noPrivileges.length > 0) console.log(`skipped: networks with the host's interfaces, for want of ${noPrivileges.join(", ")}`);

const id = process.pid.toString(36);
const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });

const settled = (promise: Promise<unknown>): Promise<boolean> => Promise.race([promise.then(() => true), new Promise<boolean>((resolve) => setImmediate(() => resolve(false)))]);

interface Outcome {
  readonly mode: string;
  readonly case: string;
  readonly expected: string;
  readonly actual: string;
  readonly detail: string;
}

describe.skipIf(noPrivileges.length > 0)("hv net check", () => {
  const hv = new Hv();
  afterAll(() => hv.close());

  it("every mode of the course, two real guests, an outside of its own: who reaches whom is as it should be", async () => {
    const killed = spawnSync("true").pid.toString(36); // a check that is no more, and its bridge in the way
    ip("link", "add", `pvo${killed}`, "type", "bridge");
    ip("addr", "add", "198.51.100.1/24", "dev", `pvo${killed}`);
    ip("link", "set", `pvo${killed}`, "up");
    ip("netns", "add", `pv-out-${killed}`);
    const { stdout, stderr } = await hv.run(["net", "check", "--json"]);
    expect(ip("-o", "link", "show", "type", "bridge")).not.toContain(`pvo${killed}`);
    expect(ip("netns", "list")).not.toContain(`pv-out-${killed}`);
    const { outcomes } = JSON.parse(stdout || "{}") as { outcomes: Outcome[] };
    expect(outcomes?.length, stderr).toBe(7 * 5);
    expect(outcomes.filter(({ expected, actual }) => expected !== actual)).toEqual([]);
    expect(await hv.json("status")).toEqual([]); // its machines are gone, and so are its networks
    expect((await hv.json<{ name: string }[]>("net", "ls")).map(({ name }) => name)).toEqual(["nat"]);
  });
});

describe.skipIf(noPrivileges.length > 0)("a machine on three networks, with real peers", () => {
  const hv = new Hv();
  const directory = mkdtempSync(join(tmpdir(), "hv-net-"));
  const bridge = `pvo${id}`; // named so that a later run removes it should this one be killed
  const children: ChildProcess[] = [];
  const noQemu = missing("qemu-system-riscv64");
  const noDnsmasq = missing("dnsmasq");
  const noTshark = missing("tshark");
  const noNats = missing("nats-server");
  for (const [what, absent] of [["a QEMU guest on our network", noQemu], ["dnsmasq as the LAN's DHCP", noDnsmasq], ["tshark on our captures", noTshark], ["a killed network-fabric", noNats]] as const) {
    if (absent.length > 0) console.log(`skipped: ${what}, ${absent.join(", ")} is absent (Debian: qemu-system-misc, dnsmasq-base, tshark)`);
  }
  const sh = async (line: string): Promise<string> => (await hv.sh("m", line)).stdout;
  const spawned = (command: string, args: readonly string[]): ChildProcess => {
    const child = spawn(command, args, { stdio: ["pipe", "pipe", "ignore"] });
    children.push(child);
    return child;
  };

  beforeAll(async () => {
    await removeStale();
    ip("link", "add", bridge, "type", "bridge");
    ip("addr", "add", "198.51.100.1/24", "dev", bridge);
    ip("link", "set", bridge, "up");
    if (noDnsmasq.length === 0) {
      spawned("dnsmasq", ["--no-daemon", "--conf-file=/dev/null", "--port=0", `--interface=${bridge}`, "--bind-interfaces", "--dhcp-range=198.51.100.50,198.51.100.60,1h", `--dhcp-leasefile=${directory}/leases`, "--log-facility=/dev/null"]);
    }
    await hv.ok("up", "m", "--topology", noNats.length === 0 ? "processes" : "embedded", "--memory", "128M", "--net", "natnetwork:n0,address=10.0.3.77", "--net", "internal:lan1,address=10.77.0.1/24", "--net", `bridged:${bridge}`, "--net", "hostonly:h0");
  });
  afterAll(async () => {
    await hv.close();
    for (const child of children) child.kill("SIGKILL");
    spawnSync("ip", ["link", "del", bridge]);
    rmSync(directory, { recursive: true, force: true });
  });

  it("its addresses: kept by our DHCP, said on the kernel's command line, given by dnsmasq through the bridge", async () => {
    await expect.poll(() => sh("ip addr show eth0"), { timeout: 60_000, interval: 1000 }).toContain("inet 10.0.3.77/24");
    expect(await sh("ip addr show eth1")).toContain("inet 10.77.0.1/24");
    if (noDnsmasq.length === 0) await expect.poll(() => sh("ip addr show eth2"), { timeout: 60_000, interval: 1000 }).toMatch(/inet 198\.51\.100\.(5\d|60)\/24/);
    const leases = await hv.json<{ network: string; address: string; hostname: string }[]>("net", "leases", "n0");
    expect(leases).toMatchObject([{ network: "n0", address: "10.0.3.77", hostname: "m" }]);
    expect(await sh("nslookup m 10.0.3.3")).toContain("Address: 10.0.3.77");
  });

  it("hv net link: the guest sees the carrier go and come", async () => {
    const carrier = (): Promise<string> => sh("cat /sys/class/net/eth0/carrier");
    expect((await carrier()).trim()).toBe("1");
    await hv.ok("net", "link", "m/net0", "down");
    await expect.poll(carrier, { timeout: 20_000 }).toBe("0\n");
    expect((await hv.sh("m", "ping -c 1 -W 1 10.0.3.2")).status).not.toBe(0);
    await hv.ok("net", "link", "m/net0", "up");
    await expect.poll(carrier, { timeout: 20_000 }).toBe("1\n");
    await expect.poll(async () => (await hv.sh("m", "ping -c 1 -W 2 10.0.3.2")).status, { timeout: 30_000 }).toBe(0);
  });

  it("hv net impair: all frames lost, and none again", async () => {
    await hv.ok("net", "impair", "m/net0", "--loss", "100%");
    expect((await hv.sh("m", "ping -c 1 -W 1 10.0.3.2")).status).not.toBe(0);
    expect(await hv.json("net", "impair")).toMatchObject([{ port: "m/net0", loss: 1 }]);
    await hv.ok("net", "impair", "m/net0", "--none");
    expect((await hv.sh("m", "ping -c 2 -W 3 10.0.3.2")).status).toBe(0);
  });

  it("hv mediate on packets: a DNS answer is rewritten, packets to a port are lost, and all is as before without the rules", async () => {
    const lookup = (): Promise<string> => sh("nslookup host 10.0.3.3");
    await expect.poll(lookup, { timeout: 60_000, interval: 1000 }).toContain("Address: 10.0.3.2");
    const rewrite = ["--where", 'frame.dns.name == "host" && frame.dns.response', "--modify", 'frame.dns.answers[0].address="203.0.113.9"'];
    await hv.ok("mediate", "add", "--id", "dns", "--plane", "frames", "--machine", "m", ...rewrite);
    await hv.ok("mediate", "add", "--id", "ping", "--plane", "frames", "--machine", "m", "--where", "frame.icmp.type == 8", "--deny");
    expect(await lookup()).toContain("Address: 203.0.113.9");
    expect((await hv.sh("m", "ping -c 2 -W 1 10.0.3.2")).status).not.toBe(0);
    for (const id of ["dns", "ping"]) await hv.ok("mediate", "rm", id);
    expect(await lookup()).toContain("Address: 10.0.3.2");
    expect((await hv.sh("m", "ping -c 1 -W 3 10.0.3.2")).status).toBe(0);
  });

  it.skipIf(noTshark.length > 0)("hv net capture: a file and a live pipe that tshark reads, with the ports' names and no malformed frame", async () => {
    const file = join(directory, "n0.pcapng");
    const hvLine = `${process.execPath} ${fileURLToPath(new URL("../bin/hv.mjs", import.meta.url))} net capture n0`;
    const live = spawned("sh", ["-c", `HV_HOME=${hv.home} ${hvLine} -w - | tshark -l -r - -c 6 2>/dev/null`]);
    let shown = "";
    live.stdout!.on("data", (chunk: Buffer) => (shown += chunk.toString()));
    const writing = hv.run(["net", "capture", "n0", "-w", file, "--count", "24"]);
    for (const deadline = Date.now() + 60_000; Date.now() < deadline && !(await settled(writing)); ) await sh("nslookup host 10.0.3.3; ping -c 2 -s 1000 10.0.3.2");
    expect((await writing).stderr).toMatch(/\d+ frames in/);
    await expect.poll(() => shown, { timeout: 30_000 }).toContain("10.0.3.77");
    const fields = execFileSync("tshark", ["-r", file, "-T", "fields", "-e", "frame.interface_name", "-e", "_ws.col.Protocol", "-e", "_ws.malformed"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    const rows = fields.trim().split("\n").map((row) => row.split("\t"));
    expect(new Set(rows.map(([name]) => name))).toEqual(new Set(["m/net0", "gateway"]));
    expect(new Set(rows.map(([, protocol]) => protocol))).toEqual(new Set([...new Set(rows.map(([, protocol]) => protocol)), "DNS", "ICMP"]));
    expect(rows.filter(([, , malformed]) => malformed)).toEqual([]);
    const bad = execFileSync("tshark", ["-r", file, "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-Y", "_ws.expert.group == \"Checksum\""], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    expect(bad).toBe("");
    expect(readFileSync(file).readUInt32LE(0)).toBe(0x0a0d0d0a);
  });

  it.skipIf(noNats.length > 0)("the network-fabric is killed: the guest runs on, keeps its addresses, and reaches gateway and host again", async () => {
    const addresses = (): Promise<string> => sh("ip -o addr | sed -n 's/.* inet \\([0-9./]*\\).*/\\1/p'");
    const hostAddress = (await hv.json<{ name: string; hostAddress?: string; subnet: string }[]>("net", "ls")).find(({ name }) => name === "h0")!.hostAddress!;
    await expect.poll(async () => (await hv.sh("m", `ping -c 1 -W 2 ${hostAddress}`)).status, { timeout: 60_000 }).toBe(0);
    const before = await addresses();
    const [list] = await hv.json<{ services: { service: string; pid: number }[] }[]>("services");
    process.kill(list!.services.find(({ service }) => service === "network-fabric")!.pid, "SIGKILL");
    for (const target of ["10.0.3.2", hostAddress]) await expect.poll(async () => (await hv.sh("m", `ping -c 1 -W 2 ${target}`)).status, { timeout: 60_000, interval: 500 }).toBe(0);
    expect(await addresses()).toBe(before);
    expect(await hv.json("net", "leases", "n0")).toMatchObject([{ address: "10.0.3.77" }]);
    expect(await hv.json("status", "m")).toMatchObject({ state: "running" });
  });

  it.skipIf(noQemu.length > 0)("a stock QEMU guest on two fabric ports, stream and dgram: it and our guest ping each other on both networks", async () => {
    const socket = join(directory, "q.sock");
    await hv.ok("net", "plug", "lan1", "--qemu-stream", socket);
    const [local, remote] = [await freeUdpPort(), await freeUdpPort()];
    await hv.ok("net", "plug", "n0", "--qemu-dgram", `${local}:${remote}`);
    const box = await buildBox("debian/minimal", { cacheDir: join(process.env["HV_HOME"] ?? join(homedir(), ".polyvisor"), "cache") });
    const qemu = spawned("qemu-system-riscv64", [
      ...["-machine", "virt", "-m", "128M", "-nographic", "-kernel", box.kernel.path, "-initrd", box.initrd!.path],
      ...["-append", "console=ttyS0 quiet hv.hostname=q hv.net=52:54:00:99:00:01,10.77.0.2/24 hv.net=52:54:00:99:00:02,10.0.3.99/24"],
      ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${socket}`, "-device", "virtio-net-device,netdev=n0,mac=52:54:00:99:00:01"],
      ...["-netdev", `dgram,id=n1,local.type=inet,local.host=127.0.0.1,local.port=${remote},remote.type=inet,remote.host=127.0.0.1,remote.port=${local}`, "-device", "virtio-net-device,netdev=n1,mac=52:54:00:99:00:02"],
    ]);
    let output = "";
    qemu.stdout!.on("data", (chunk: Buffer) => (output += chunk.toString()));
    await expect.poll(async () => (await hv.sh("m", "ping -c 1 -W 2 10.77.0.2")).stdout, { timeout: 150_000, interval: 1000 }).toContain("1 packets received");
    await expect.poll(async () => (await hv.sh("m", "ping -c 1 -W 2 10.0.3.99")).stdout, { timeout: 30_000, interval: 1000 }).toContain("1 packets received");
    qemu.stdin!.write("ping -c 2 10.77.0.1; ping -c 3 10.0.3.77\n");
    await expect.poll(() => output, { timeout: 60_000 }).toContain("2 packets received");
    await expect.poll(() => output, { timeout: 60_000 }).toContain("3 packets received");
    const { stations } = await hv.json<{ stations: { mac: string; port: string }[] }>("net", "inspect", "lan1");
    expect(stations).toContainEqual(expect.objectContaining({ mac: "52:54:00:99:00:01", port: "peer/lan1-0" }));
  });
});

async function freeUdpPort(): Promise<number> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(resolve));
  return port;
}
