import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildBox } from "../build-box.ts";

const missing = ["qemu-system-riscv64", "apt-get", "dpkg-deb"].filter((tool) => spawnSync("which", [tool]).status !== 0);
if (missing.length > 0) console.log(`debian/minimal under QEMU is skipped: this machine has no ${missing.join(", ")}`);

interface Result {
  stdout: string;
  stderr: string;
  status: number;
}

/** The host's end of the agent's protocol (README.md), as small as it can be. */
class Agent {
  readonly #socket: Socket;
  #rest = "";
  readonly #lines: string[] = [];
  #wake = (): void => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("latin1").on("data", (text: string) => {
      const lines = (this.#rest + text).split("\n");
      this.#rest = lines.pop() ?? "";
      this.#lines.push(...lines);
      this.#wake();
    });
    socket.on("error", () => {}); // QEMU ends
  }
  send(line: string): void {
    this.#socket.write(`${line}\n`);
  }
  async line(): Promise<string> {
    while (this.#lines.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
    return this.#lines.shift() as string;
  }
  /** Runs commands side by side. */
  async exec(commands: Record<string, string>): Promise<Record<string, Result>> {
    const results: Record<string, Result> = {};
    for (const [id, command] of Object.entries(commands)) this.send(`EXEC ${id} ${Buffer.from(command).toString("base64")}`);
    while (Object.values(results).filter((result) => result.status >= 0).length < Object.keys(commands).length) {
      const line = await this.line();
      expect(line.length).toBeLessThan(4096);
      const [verb = "", id = "", value = ""] = line.split(" ");
      const result = (results[id] ??= { stdout: "", stderr: "", status: -1 });
      if (verb === "OUT") result.stdout += Buffer.from(value, "base64").toString();
      else if (verb === "ERR") result.stderr += Buffer.from(value, "base64").toString();
      else if (verb === "EXIT") result.status = Number(value);
      else throw new Error(`unexpected line: ${line}`);
    }
    return results;
  }
  close(): void {
    this.#socket.destroy();
  }
}

describe.skipIf(missing.length > 0)("debian/minimal under QEMU", () => {
  let folder = "";
  let qemu: ChildProcess;
  let serial = "";
  let agent: Agent;

  beforeAll(async () => {
    const cacheDir = join(process.env["HV_HOME"] || join(homedir(), ".polyvisor"), "cache");
    const box = await buildBox("debian/minimal", { cacheDir });
    folder = mkdtempSync(join(tmpdir(), "pv-qemu-"));
    const [socket, disk] = [join(folder, "agent"), join(folder, "disk")];
    copyFileSync(box.disk!.path, disk);
    qemu = spawn("qemu-system-riscv64", [
      ...["-M", "virt", "-m", "256M", "-nographic", "-no-reboot", "-kernel", box.kernel.path, "-initrd", box.initrd!.path],
      ...["-append", `${box.config.bootArguments} hv.hostname=web`],
      ...["-device", "virtio-serial-device", "-chardev", `socket,id=a,path=${socket},server=on,wait=off`, "-device", "virtconsole,chardev=a"],
      ...["-netdev", "user,id=n", "-device", "virtio-net-device,netdev=n", "-device", "virtio-rng-device"],
      ...["-drive", `file=${disk},format=raw,if=none,id=d`, "-device", "virtio-blk-device,drive=d"],
    ]);
    qemu.stdout?.setEncoding("latin1").on("data", (text: string) => (serial += text));
    for (let tries = 0; ; tries++) {
      const connected = await new Promise<Socket | undefined>((resolve) => {
        const attempt = connect(socket, () => resolve(attempt));
        attempt.on("error", () => resolve(undefined));
      });
      if (connected) {
        agent = new Agent(connected);
        break;
      }
      if (tries > 100) throw new Error("QEMU does not listen");
      await sleep(50);
    }
  });
  afterAll(() => {
    agent?.close();
    qemu?.kill("SIGKILL");
    if (folder) rmSync(folder, { recursive: true, force: true });
  });

  it("boots to a prompt on the serial console, and the agent says hello", async () => {
    expect(await agent.line()).toBe("HELLO 2");
    agent.send("PING 7");
    expect(await agent.line()).toBe("PONG 7 2");
    for (let tries = 0; !serial.includes("web:~# ") && tries < 100; tries++) await sleep(100);
    expect(serial).toContain("debian/minimal: Linux ");
    expect(serial).toContain("web:~# ");
  });
  it("runs commands side by side: output, errors, exit status; lines do not mix", async () => {
    const long = `echo ${"x".repeat(20_000)} | wc -c`;
    const { a, b, c, d, e, f } = await agent.exec({
      a: "uname -m; echo oops >&2; exit 3",
      b: "seq 1 20000",
      c: "no-such-command",
      d: "cat; tty; pwd",
      e: long,
      f: "sleep 100 & echo left behind",
    });
    expect(a).toEqual({ stdout: "riscv64\n", stderr: "oops\n", status: 3 });
    expect(b?.stdout).toBe(Array.from({ length: 20_000 }, (_, i) => `${i + 1}\n`).join(""));
    expect(c).toMatchObject({ stdout: "", status: 127 });
    expect(d).toMatchObject({ stdout: "not a tty\n/root\n" });
    expect(e).toMatchObject({ stdout: "20001\n", status: 0 });
    expect(f).toMatchObject({ stdout: "left behind\n", status: 0 });
  });
  it("garbage to the agent → ignored", async () => {
    for (const line of ["", "garbage", "EXEC", "EXEC ../../x aaaa", "EXIT 1 1", "PING 9"]) agent.send(line);
    expect(await agent.line()).toBe("PONG 9 2");
  });
  it("loads modules when they are needed: ext4 by mount, overlay, 9p, vsock; network by DHCP", async () => {
    const { m, n, o } = await agent.exec({
      m: "mount -t ext4 /dev/vda /mnt && dd if=/dev/urandom of=/mnt/x bs=1M count=4 2>/dev/null && sync && ls /mnt && umount /mnt",
      n: "for i in $(seq 50); do ip -4 a show eth0 2>/dev/null | grep -q 10.0.2.15 && break; sleep 0.2; done; ip -4 a show eth0; cat /etc/resolv.conf",
      o: "modprobe -a overlay 9p 9pnet_virtio vmw_vsock_virtio_transport virtio_balloon && dmesg | grep -ci 'verification failed'",
    });
    expect(m).toEqual({ stdout: "lost+found\nx\n", stderr: "", status: 0 });
    expect(n?.stdout).toMatch(/inet 10\.0\.2\.15\/24[^]*nameserver 10\.0\.2\.3/);
    expect(o).toEqual({ stdout: "0\n", stderr: "", status: 1 }); // grep found none: every signature is good
  });
  it("HALT → unmounts and powers off", async () => {
    const ended = new Promise((resolve) => qemu.on("exit", resolve));
    agent.send("HALT");
    expect(await ended).toBe(0);
    expect(serial).toContain("reboot: Power down");
  });
});
