import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { createInterface } from "node:readline";

const QEMU = "qemu-system-riscv64";
export const qemuAbsent = spawnSync(QEMU, ["--version"]).status === 0 ? undefined : `this machine has no ${QEMU}`;

/** Boots a box's kernel on a qcow2 disk in QEMU, runs a command by the guest agent, powers off. Answers what the command printed, and the serial console. */
export async function runInQemu(files: { kernel: string; initrd: string; qcow2: string; append: string; socket: string }, command: string): Promise<{ output: string; serial: string }> {
  const server = createServer().listen(files.socket);
  await once(server, "listening");
  const child = spawn(QEMU, [
    ...["-M", "virt", "-m", "512M", "-nographic", "-no-reboot", "-monitor", "none", "-kernel", files.kernel, "-initrd", files.initrd, "-append", files.append],
    ...["-device", "virtio-serial-device", "-chardev", `socket,id=a,path=${files.socket}`, "-device", "virtconsole,chardev=a"],
    ...["-drive", `file=${files.qcow2},format=qcow2,if=none,id=d`, "-device", "virtio-blk-device,drive=d", "-device", "virtio-rng-device"],
  ], { stdio: ["ignore", "pipe", "inherit"], timeout: 200_000, killSignal: "SIGKILL" });
  const closed = once(child, "close");
  let serial = "";
  child.stdout.setEncoding("latin1").on("data", (text: string) => (serial += text));
  try {
    const [agent] = (await Promise.race([once(server, "connection"), closed.then(() => Promise.reject(new Error(`QEMU ended: ${serial}`)))])) as [Socket];
    let output = "";
    for await (const line of createInterface({ input: agent })) {
      const [kind, , rest = ""] = line.trim().split(" ");
      if (kind === "HELLO") agent.write(`EXEC 1 ${Buffer.from(`{ ${command}; } 2>&1; sync; (sleep 1; systemctl poweroff) >/dev/null 2>&1 &`).toString("base64")}\n`);
      if (kind === "OUT") output += Buffer.from(rest, "base64").toString();
      if (kind === "EXIT") break;
    }
    await closed;
    return { output, serial };
  } finally {
    server.close();
    child.kill("SIGKILL");
  }
}
