import { spawnSync } from "node:child_process";
import { Network, NetworkMode, Port } from "@polyvisor/contracts/network";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MAXIMUM_CONNECTING } from "./core/nat/tcp-nat.ts";
import { Namespace, namespacesMissing } from "./testing/namespaces.ts";
import { GATEWAY, NatRig } from "./testing/nat-rig.ts";
import { hashOf } from "./testing/traffic.ts";

const OUTSIDE = "192.0.2.2";
/** Routed to the outside by the host, which has no such network. */
const BEYOND = "198.51.100.99";
/** The outside sends it back to the host, and so on, until its hops are used up. */
const LOOP = "203.0.113.7";
const missing = namespacesMissing();
if (missing) console.log(`skipped: network tools through the NAT: ${missing}`);

/** The test's condition for a tool: says why it is left out. */
function absent(...programs: string[]): boolean {
  const lacking = programs.filter((program) => spawnSync(program, ["--version"]).error !== undefined);
  if (!missing && lacking.length > 0) console.log(`skipped: ${lacking.join(", ")} through the NAT: not installed`);
  return lacking.length > 0;
}

describe.skipIf(missing !== undefined)("the tools of a network's users, from a guest behind the NAT", () => {
  let rig: NatRig;
  const inGuest = (program: string, ...args: string[]) => {
    const { stdout, stderr, status } = spawnSync("ip", ["netns", "exec", rig.guest.name, program, ...args], { encoding: "utf8", timeout: 60_000 });
    return { text: stdout + stderr, status };
  };
  beforeAll(async () => {
    rig = await NatRig.start();
    rig.host.run("ip", "route", "add", BEYOND, "via", OUTSIDE);
    rig.host.run("ip", "route", "add", LOOP, "via", OUTSIDE);
    rig.world.run("ip", "route", "add", LOOP, "via", "192.0.2.1");
    rig.world.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=10000");
    await rig.world.server(9000);
  });
  afterAll(() => rig?.close());

  it.skipIf(absent("ping"))("ping: gateway and outside answer; errors on the way are told by who sent them", () => {
    expect(inGuest("ping", "-c", "3", "-i", "0.2", GATEWAY).text).toContain(" 0% packet loss");
    expect(inGuest("ping", "-c", "3", "-i", "0.2", "-s", "5000", OUTSIDE).text).toMatch(/5008 bytes from 192\.0\.2\.2: icmp_seq=1[\s\S]* 0% packet loss/);
    expect(inGuest("ping", "-c", "1", "-t", "1", OUTSIDE).text).toContain(`From ${GATEWAY} icmp_seq=1 Time to live exceeded`);
    expect(inGuest("ping", "-c", "1", "-W", "2", BEYOND).text).toContain(`From ${OUTSIDE} icmp_seq=1 Destination Net Unreachable`);
    expect(inGuest("ping", "-c", "1", "-t", "2", "-W", "2", LOOP).text).toContain(`From ${OUTSIDE} icmp_seq=1 Time to live exceeded`);
  });
  it.skipIf(absent("ping"))("ping through a raw socket (a capability), and through an unprivileged one where the host has a group for it", () => {
    rig.host.run("sysctl", "-q", "-w", "net.ipv4.ping_group_range=1 0");
    expect(inGuest("ping", "-c", "1", OUTSIDE).text).toContain("1 received");
    rig.host.run("sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 0");
    expect(inGuest("ping", "-c", "1", OUTSIDE).text).toContain("1 received"); // now through an unprivileged socket
    expect(inGuest("ping", "-c", "1", "-t", "2", "-W", "2", LOOP).text).toContain(`From ${OUTSIDE} icmp_seq=1 Time to live exceeded`);
  });
  it.skipIf(absent("ping"))("IPv6: the kernel makes itself an address in the announced prefix, reaches the gateway, and has no route to the world", async () => {
    rig.guest.run("sysctl", "-q", "-w", `net.ipv6.conf.${rig.tap}.disable_ipv6=0`);
    const own = () => rig.guest.run("ip", "-6", "-o", "address", "show", "dev", rig.tap, "scope", "global", "-tentative");
    await expect.poll(own, { timeout: 15_000 }).toMatch(/fd50:5600:a00:200:/);
    expect(inGuest("ping", "-6", "-c", "2", "-i", "0.2", "fd50:5600:a00:200::2").text).toContain(" 0% packet loss");
    expect(inGuest("ping", "-6", "-c", "2", "-i", "0.2", `fe80::5055:aff:fe00:202%${rig.tap}`).text).toContain(" 0% packet loss");
    expect(inGuest("ping", "-6", "-c", "1", "2001:db8::1").text).toMatch(/Network is unreachable/);
    rig.guest.run("ip", "-6", "route", "add", "2001:db8::/32", "via", "fd50:5600:a00:200::2");
    expect(inGuest("ping", "-6", "-c", "1", "2001:db8::1").text).toMatch(/From fd50:5600:a00:200::2 icmp_seq=1 Destination unreachable: No route/);
  }, 30_000);
  it.skipIf(absent("traceroute"))("traceroute -I: the gateway is the first hop, then the world's", () => {
    const { text } = inGuest("traceroute", "-I", "-n", "-q", "1", "-w", "2", OUTSIDE);
    expect(text).toMatch(/^ 1 {2}10\.0\.2\.2 /m);
    expect(text).toMatch(/^ 2 {2}192\.0\.2\.2 /m);
  });
  it.skipIf(absent("nmap"))("nmap -sT: open, closed and unreachable are told apart", () => {
    expect(inGuest("nmap", "-sT", "-Pn", "-n", "-p", "8999-9001", OUTSIDE).text).toMatch(/8999\/tcp closed[\s\S]*9000\/tcp open[\s\S]*9001\/tcp closed/);
    expect(inGuest("nmap", "-sT", "-Pn", "-n", "-p", "1-2000", "--max-retries", "1", GATEWAY).text).toMatch(/All 2000 scanned ports .* are in ignored states|closed/);
  });
  it.skipIf(absent("iperf3"))("iperf3: TCP both ways, four at a time, and UDP", async () => {
    const server = rig.world.spawn("iperf3", ["-s", "-B", OUTSIDE, "--forceflush"]);
    await new Promise((resolve) => server.stdout!.once("data", resolve));
    const run = (...args: string[]) => JSON.parse(inGuest("iperf3", "-c", OUTSIDE, "-J", "-t", "2", ...args).text) as { end: { sum_received?: { bytes: number }; sum?: { lost_percent: number; packets: number } }; error?: string };
    for (const args of [[], ["-R"], ["-P", "4"]]) expect(run(...args).end.sum_received!.bytes, args.join(" ")).toBeGreaterThan(10_000_000);
    const udp = run("-u", "-b", "20M", "-l", "1400");
    expect(udp.end.sum!.packets).toBeGreaterThan(1000);
    expect(udp.end.sum!.lost_percent).toBeLessThan(5);
    if (!absent("tcpdump")) {
      const marked = rig.world.spawn("tcpdump", ["-i", "up1", "-n", "-c", "1", "-l", "-v", "tcp[2:2] = 5201 and ip[1] & 0xfc = 0xb8"]); // DSCP EF (RFC 3246)
      let text = "";
      marked.stdout!.on("data", (chunk) => (text += String(chunk)));
      const over = new Promise((resolve) => marked.once("exit", resolve));
      await new Promise((resolve) => setTimeout(resolve, 1500)); // until it listens
      inGuest("iperf3", "-c", OUTSIDE, "-n", "100K", "-S", "0xb8");
      await Promise.race([over, new Promise((resolve) => setTimeout(resolve, 5000))]);
      marked.kill();
      expect(text).toContain("tos 0xb8");
    }
    server.kill();
  }, 60_000);
  it.skipIf(absent("hping3"))("hping3: odd flags, fragments, wrong checksums: counted or answered as a kernel would, and nothing falls over", async () => {
    const hping = (...args: string[]) => inGuest("hping3", "-c", "2", "-i", "u50000", ...args, OUTSIDE).text;
    expect(hping("-S", "-p", "9000")).toContain("flags=SA");
    expect(hping("-S", "-p", "1")).toContain("flags=RA");
    expect(hping("-A", "-p", "9000")).toContain("flags=R"); // of no connection
    expect(hping("-F", "-P", "-U", "-p", "9000")).toContain("flags=RA");
    expect(hping("-S", "-b", "-p", "9000")).toContain("100% packet loss");
    hping("-S", "-f", "-p", "9000");
    hping("-2", "-d", "3000", "-p", "7");
    hping("-0", "-H", "200");
    inGuest("hping3", "-c", "2000", "-i", "u100", "-q", "--rand-source", "-S", "-p", "9000", OUTSIDE); // of other subnets: never carried
    const { counters } = await rig.fabric.readNetworkStats({ network: "", machine: "peer" });
    expect(counters.get("peer/net0.gateway_ignored")).toBeGreaterThan(1900n);
    expect(inGuest("ping", "-c", "1", OUTSIDE).text).toContain("1 received");
  }, 60_000);
  it.skipIf(absent("dig"))("dig: the fabric's DNS over UDP and TCP answers the gateway's name, and says so when there is none", () => {
    for (const transport of ["+notcp", "+tcp"]) {
      const { text, status } = inGuest("dig", "@10.0.2.3", "+tries=1", "+time=3", transport, "no-such-name.invalid");
      expect(status, text).toBe(0);
      expect(text).toMatch(/status: (NXDOMAIN|SERVFAIL)/);
    }
  });

  it.skipIf(absent("ping"))("offline: machines on an internal network reach each other, those on a host-only one the host, too", async () => {
    const { host, fabric } = rig;
    host.run("ip", "link", "set", "up0", "down");
    expect(host.run("ip", "route")).not.toContain("192.0.2");
    const machines = [new Namespace("one"), new Namespace("two")];
    try {
      for (const [name, mode, subnet] of [["lan", NetworkMode.INTERNAL, "10.77.0"], ["ho", NetworkMode.HOST_ONLY, "192.168.77"]] as const) {
        const { network } = await fabric.createNetwork({ network: Network.fromPartial({ name, mode, subnet: `${subnet}.0/24` }) });
        for (const [i, machine] of machines.entries()) {
          const tap = `pv${name}${i}${process.pid % 100_000}`;
          await fabric.createPort({ port: Port.fromPartial({ id: `${machine.name}/${name}`, machine: machine.name, network: name, mac: `52:54:00:77:${mode}0:0${i}`, peer: `tap:${tap}` }) });
          host.run("ip", "link", "set", tap, "netns", machine.name);
          machine.run("ip", "link", "set", tap, "address", `52:54:00:77:${mode}0:0${i}`, "up");
          machine.run("ip", "address", "add", `${subnet}.${10 + i}/24`, "dev", tap);
        }
        const [one, two] = machines as [Namespace, Namespace];
        expect(one.run("ping", "-c", "2", "-i", "0.2", `${subnet}.11`)).toContain(" 0% packet loss");
        if (mode === NetworkMode.HOST_ONLY) {
          expect(two.run("ping", "-c", "1", network!.hostAddress)).toContain(" 0% packet loss");
          expect(host.run("ping", "-c", "1", `${subnet}.10`)).toContain(" 0% packet loss");
        }
      }
    } finally {
      for (const { id } of (await fabric.listPorts({ machine: "" })).ports.filter(({ network }) => network === "lan" || network === "ho")) await fabric.deletePort({ id });
      for (const name of ["lan", "ho"]) await fabric.deleteNetwork({ name });
      for (const machine of machines) machine.close();
      host.run("ip", "link", "set", "up0", "up");
    }
  }, 30_000);
  it("the host roams: offline → told at once, the host itself stays reachable; another upstream → new connections, and the guest has changed nothing", async () => {
    const { guest, host, world } = rig;
    await host.server(9000);
    const before = guest.run("ip", "-4", "-o", "address", "show", "dev", rig.tap) + guest.run("ip", "route");
    host.run("ip", "link", "set", "up0", "down");
    expect(await guest.client("connect", OUTSIDE, 9000)).toEqual({ code: "ENETUNREACH" });
    expect(await guest.client("down", GATEWAY, 9000, 1000)).toEqual({ bytes: 1000, hash: hashOf(1000) });
    host.run("ip", "link", "add", "wlan0", "type", "veth", "peer", "name", "air", "netns", world.name);
    for (const [namespace, name, address] of [[host, "wlan0", "198.18.0.1/24"], [world, "air", "198.18.0.2/24"]] as const) {
      namespace.run("ip", "address", "add", address, "dev", name);
      namespace.run("ip", "link", "set", name, "up");
    }
    host.run("ip", "route", "add", "default", "via", "198.18.0.2");
    expect(await guest.client("down", OUTSIDE, 9000, 1_000_000)).toEqual({ bytes: 1_000_000, hash: hashOf(1_000_000) });
    expect(guest.run("ip", "-4", "-o", "address", "show", "dev", rig.tap) + guest.run("ip", "route")).toBe(before);
  }, 60_000);
  it.skipIf(absent("hping3"))("a SYN flood of one machine: another's connections go on, and the flood holds no more than its share", async () => {
    const other = new Namespace("other");
    try {
      const tap = `pvo${process.pid}`;
      const mac = "52:54:00:00:00:16";
      await rig.fabric.createPort({ port: Port.fromPartial({ id: "other/net0", machine: "other", mac, peer: `tap:${tap}` }) });
      rig.host.run("ip", "link", "set", tap, "netns", other.name);
      other.run("ip", "link", "set", tap, "address", mac, "up");
      other.run("ip", "address", "add", "10.0.2.15/24", "dev", tap);
      other.run("ip", "route", "add", "default", "via", GATEWAY);
      // To where nobody answers, so that every SYN stays a connection that is being made.
      rig.host.run("ip", "neighbour", "add", "198.18.0.77", "lladdr", "02:00:00:00:00:77", "dev", "wlan0");
      const flood = rig.guest.spawn("hping3", ["-q", "-S", "-i", "u50", "-c", "40000", "-p", "80", "198.18.0.77"]);
      const over = new Promise((resolve) => flood.once("exit", resolve));
      await expect.poll(async () => (await rig.fabric.readNetworkStats({ network: "", machine: "peer" })).counters.get("peer/net0.nat_tcp_dropped") ?? 0n, { timeout: 20_000 }).toBeGreaterThan(0n);
      for (let i = 0; i < 3; i++) expect(await other.client("down", OUTSIDE, 9000, 2_000_000)).toEqual({ bytes: 2_000_000, hash: hashOf(2_000_000) });
      const { natFlows } = await rig.fabric.listFlows({ machine: "peer" });
      expect(natFlows.filter(({ state }) => state === "CONNECTING").length).toBeLessThanOrEqual(MAXIMUM_CONNECTING);
      flood.kill();
      await over;
      await rig.fabric.deletePort({ id: "other/net0" });
    } finally {
      other.close();
    }
  }, 60_000);
});
