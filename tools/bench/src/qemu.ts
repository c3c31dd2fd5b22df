import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { createInterface, type Interface } from "node:readline";

const QEMU = "qemu-system-riscv64";
const MACHINE = ["-M", "virt", "-m", "256M", "-nographic", "-no-reboot", "-monitor", "none"];

/** Version line of the peer, or undefined when it is not installed. */
export function qemuVersion(): string | undefined {
  const { stdout, status } = spawnSync(QEMU, ["--version"], { encoding: "utf8" });
  return status === 0 ? stdout.split("\n")[0]!.trim() : undefined;
}

/** Runs a raw M-mode image until it powers off; answers its serial output. */
export async function runBare(image: string): Promise<string> {
  const child = spawn(QEMU, [...MACHINE, "-bios", image], { stdio: ["ignore", "pipe", "inherit"], timeout: 120_000 });
  let output = "";
  child.stdout.setEncoding("latin1").on("data", (text: string) => (output += text));
  await once(child, "close");
  return output;
}

/** A box booted under QEMU with the same devices as our board; commands run through the same guest agent. */
export class QemuGuest {
  readonly #child: ChildProcess;
  readonly #agent: Socket;
  readonly #lines: Interface;
  readonly bootMs: number;

  private constructor(child: ChildProcess, agent: Socket, lines: Interface, bootMs: number) {
    this.#child = child;
    this.#agent = agent;
    this.#lines = lines;
    this.bootMs = bootMs;
  }

  /** `bootMs`: from the spawn to the agent's HELLO. */
  static async boot(files: { kernel: string; initrd: string; disk: string; diskFormat?: string; append: string }, socketPath: string): Promise<QemuGuest> {
    const server = createServer().listen(socketPath);
    await once(server, "listening");
    const begun = performance.now();
    const child = spawn(QEMU, [
      ...[...MACHINE, "-kernel", files.kernel, "-initrd", files.initrd, "-append", files.append],
      ...["-device", "virtio-serial-device", "-chardev", `socket,id=a,path=${socketPath}`, "-device", "virtconsole,chardev=a"],
      ...["-drive", `file=${files.disk},format=${files.diskFormat ?? "raw"},if=none,id=d`, "-device", "virtio-blk-device,drive=d"],
      ...["-netdev", "user,id=n", "-device", "virtio-net-device,netdev=n", "-device", "virtio-rng-device"],
    ], { stdio: ["ignore", "ignore", "inherit"] });
    const [agent] = (await once(server, "connection")) as [Socket];
    server.close();
    const lines = createInterface({ input: agent });
    const guest = new Promise<void>((resolve, reject) => {
      lines.on("line", (line) => line.startsWith("HELLO ") && resolve());
      child.once("exit", (code) => reject(new Error(`${QEMU} ended with ${code} before the guest was up`)));
    });
    await guest;
    return new QemuGuest(child, agent, lines, performance.now() - begun);
  }

  /** Runs a shell command line; answers stdout and stderr together. */
  exec(command: string): Promise<string> {
    this.#agent.write(`EXEC 1 ${Buffer.from(command).toString("base64")}\n`);
    return new Promise((resolve) => {
      let output = "";
      const take = (line: string): void => {
        const [kind, , rest = ""] = line.trim().split(" ");
        if (kind === "OUT" || kind === "ERR") output += Buffer.from(rest, "base64").toString();
        if (kind !== "EXIT") return;
        this.#lines.off("line", take);
        resolve(output);
      };
      this.#lines.on("line", take);
    });
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGKILL");
    await once(this.#child, "close");
  }
}
