/** debian/13: built from Debian's packages, booted with systemd on our machine, entered by ssh. */
import { spawnSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Hv } from "./hv.ts";
import { qemuAbsent, runInQemu } from "./qemu-guest.ts";

const missing = ["apt-get", "dpkg-deb"].filter((tool) => spawnSync("which", [tool]).status !== 0);
if (missing.length > 0) console.log(`debian/13 is not built and booted: this machine has no ${missing.join(", ")}`);
const hasSsh = spawnSync("which", ["ssh", "ssh-keygen"]).status === 0;
if (!hasSsh) console.log("hv ssh is not tried: this machine has no ssh");

/** Opens four counters of itself (perf_event_open, number 241; struct perf_event_attr version 0) and adds up 20,000 numbers. */
const PERF = `
  my @counters = map {
    my $fd = syscall(241, pack("LLQQQQQLLQ", $_->[0], 64, $_->[1], 0, 0, 0, 0, 0, 0, 0), 0, -1, -1, 0);
    die "perf_event_open @$_: $!" if $fd < 0;
    open(my $file, "<&=", $fd); $file
  } [0, 1], [0, 0], [3, 0x10003], [4, 0x20001];
  sub counts { map { sysread($_, my $value, 8) == 8 or die; unpack("Q", $value) } @counters }
  my @before = counts(); my $sum = 0; $sum += $_ for 1 .. 20000; my @after = counts();
  print join(" ", map { $after[$_] - $before[$_] } 0 .. 3), "\n";
`;
/** Two boots of systemd, one of them in QEMU: more than a minute, so only when asked for. */
const noQemuDisk = qemuAbsent ?? (process.env["PV_QEMU_DISK"] ? undefined : "takes more than a minute; set PV_QEMU_DISK=1 to run it");
if (noQemuDisk) console.log(`skipped: the disk does not go to QEMU and back: ${noQemuDisk}`);

describe.skipIf(missing.length > 0)("debian/13", () => {
  /** Has the box; the other host takes it from there, lazily. */
  const shelf = new Hv();
  const hv = new Hv();
  beforeAll(async () => {
    await shelf.ok("box", "build", "debian/13");
    const host = (await shelf.ok("registry", "show", "--url")).trim();
    await hv.ok("box", "add", `${host}/debian/13:13`, "--lazy");
    await hv.ok("up", "d13", "--box", "debian/13");
  }, 600_000);
  afterAll(async () => {
    await hv.close();
    await shelf.close();
  });

  it("came lazily: 27 % of the box at most has moved when it asks who logs in, of its disk a sixth; the box has the digest that it has there", async () => {
    const { layers } = JSON.parse(await (await fetch(`http://${(await shelf.ok("registry", "show", "--url")).trim()}/v2/debian/13/manifests/13`)).text()) as { layers: { mediaType: string; size: number }[] };
    const sizeOf = (kind: string): number => layers.find(({ mediaType }) => mediaType.includes(kind))!.size;
    await hv.sh("d13", "for i in $(seq 100); do systemctl is-active -q serial-getty@ttyS0 && break; sleep 0.2; done");
    const partial = join(hv.home, "registry", "partial");
    const [blob] = readdirSync(partial);
    const { size, blocks } = statSync(join(partial, blob!));
    expect(size).toBe(sizeOf("disk.chunks"));
    // What does not wait (kernel, initial RAM disk, the disk's index) and the chunks that the guest has read.
    const all = layers.reduce((sum, layer) => sum + layer.size, 0);
    const moved = all - size + blocks * 512;
    const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
    console.log(`debian/13 to login: ${megabytes(moved)} of ${megabytes(all)} MB, ${((100 * moved) / all).toFixed(1)} %: disk ${megabytes(blocks * 512)} of ${megabytes(size)}, kernel ${megabytes(sizeOf("kernel"))}, initial RAM disk ${megabytes(sizeOf("initrd"))}`);
    expect(blocks * 512).toBeLessThan(size / 6);
    expect(moved).toBeLessThan(all * 0.27);
    const digest = async (from: Hv): Promise<string> => (await from.json<{ digest: string }>("box", "inspect", "debian/13")).digest;
    expect(await digest(hv)).toBe(await digest(shelf));
  });

  it("boots with systemd to a login prompt; no unit failed", async () => {
    const { stdout } = await hv.sh("d13", "cat /proc/1/comm; systemctl --failed --no-legend");
    expect(stdout).toBe("systemd\n");
    const { stdout: console_ } = await hv.run(["console", "d13"]);
    expect(console_).toMatch(/Debian GNU\/Linux 13 d13 ttyS0[^]*d13 login: /);
  });
  it("perf finds hardware counters through SBI PMU: instructions, cycles, TLB misses, and the exceptions that a process takes", async () => {
    const { stdout, stderr } = await hv.run(["exec", "-i", "d13", "--", "perl", "-"], { input: PERF });
    expect(stderr).toBe("");
    const [instructions, cycles, misses, exceptions] = stdout.trim().split(" ").map(Number) as [number, number, number, number];
    expect(instructions).toBeGreaterThan(20_000 * 20);
    expect(instructions).toBeLessThan(20_000 * 2000);
    expect(Math.abs(cycles - instructions)).toBeLessThan(10_000); // one instruction a cycle; they are read one after the other
    expect(misses).toBeGreaterThan(0);
    expect(exceptions).toBeGreaterThan(2); // the system calls that read the other counters
  });
  it("dpkg and apt find everything in order: every package's files as they were shipped", async () => {
    const { stdout, stderr } = await hv.sh("d13", "dpkg --audit; dpkg --verify base-files coreutils systemd openssh-server | grep -v /usr/share/; apt-get -qq check; dpkg --configure -a; dpkg -l | grep -c ^ii");
    expect(stderr).toBe("");
    expect(Number(stdout)).toBeGreaterThan(120);
  });
  it("its filesystem has grown to its disk, its network is configured, its user may sudo, its clock and its name are right", async () => {
    const { stdout } = await hv.sh(
      "d13",
      "df -k / | awk 'NR==2 { print ($2 > 3800000) }'; for i in $(seq 50); do grep -q nameserver /etc/resolv.conf 2>/dev/null && break; sleep 0.2; done; ip -4 -br a show eth0; cat /etc/resolv.conf; su debian -c 'sudo -n id -u'; hostname; stat -c '%a %U:%G' /usr/bin/sudo /etc/shadow",
    );
    expect(stdout).toMatch(/^1\neth0 +UP +10\.0\.2\.15\/24[^]*nameserver 10\.0\.2\.3\n0\nd13\n4755 root:root\n640 root:shadow\n$/);
  });
  it.skipIf(!hasSsh)("hv ssh: a real sshd, this user's key, the command's exit status", async () => {
    const { stdout, status, stderr } = await hv.run(["ssh", "d13", "--", "id -un; sudo -n cat /etc/machine-id | wc -c; exit 7"]);
    expect({ stdout, status, stderr }).toEqual({ stdout: "debian\n33\n", status: 7, stderr: "" });
    expect((await hv.run(["ssh", "d13", "--user", "nobody-here"])).stderr).toMatch(/has no user "nobody-here"; name one with --user/);
    expect(await hv.ok("ssh-config", "d13")).toMatch(/^Host d13\n[^]*ProxyCommand .*sshd -i/);
  });
  it("halt ends it cleanly: systemd stops everything and powers off", async () => {
    // 1.3 G instructions: more than the usual 20 s on a busy host.
    expect(await hv.json<{ state: string; reason: string }>("halt", "d13", "--timeout", "200")).toMatchObject({ state: "halted", reason: expect.not.stringMatching(/force/) });
  });
  it.skipIf(noQemuDisk)("the exported disk boots in QEMU; the disk that QEMU has written boots here, with what was written", async () => {
    const { kernel, initrd, config } = await hv.json<{ kernel: { digest: string }; initrd: { digest: string }; config: { bootArguments: string } }>("box", "inspect", "debian/13");
    const blob = ({ digest }: { digest: string }): string => join(hv.home, "registry/blobs/sha256", digest.slice(7, 9), digest.slice(7));
    const qcow2 = join(hv.home, "d13.qcow2");
    await hv.ok("disk", "export", "d13", qcow2);
    const files = { kernel: blob(kernel), initrd: blob(initrd), qcow2, append: config.bootArguments, socket: join(hv.home, "q.sock") };
    const { output } = await runInQemu(files, "cat /proc/1/comm; dmesg | grep -c QEMU; dd if=/dev/urandom of=/root/noise bs=1M count=4 2>/dev/null; sha256sum /root/noise | tee /root/noise.sum");
    expect(output).toMatch(/^systemd\n\d+\n[0-9a-f]{64} {2}\/root\/noise\n$/);
    await hv.ok("disk", "import", "d13", qcow2);
    await hv.ok("up", "d13");
    const { stdout } = await hv.sh("d13", "cat /proc/1/comm; cat /root/noise.sum; sha256sum -c /root/noise.sum");
    expect(stdout).toBe(`systemd\n${output.split("\n")[2]}\n/root/noise: OK\n`);
  });
}, 300_000);
