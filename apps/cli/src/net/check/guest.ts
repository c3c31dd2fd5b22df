import type { OrchestratorPort } from "@polyvisor/contracts/orchestrator";
import { execIn } from "../../commands/exec.ts";

/** Where each guest's server listens. */
export const GUEST_PORT = 7777;
const CONNECT_SECONDS = 3;

/** One of the two machines that the check moves through all networks. */
export class CheckGuest {
  readonly name: string;
  readonly #orchestrator: OrchestratorPort;

  constructor(orchestrator: OrchestratorPort, name: string) {
    this.#orchestrator = orchestrator;
    this.name = name;
  }
  get port(): string {
    return `${this.name}/net0`;
  }
  /** A server that says this machine's name. */
  async serve(): Promise<void> {
    await this.sh(`for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /sys/class/net/eth0 ] && break; sleep 1; done
      printf '#!/bin/sh\\nprintf ${this.name}\\n' >/tmp/answer; chmod +x /tmp/answer
      setsid nc -ll -p ${GUEST_PORT} -e /tmp/answer >/dev/null 2>&1 </dev/null &`);
  }
  /** Takes an address on the network that the cable is in now: by DHCP, or the given one. Answers it; empty: there is none. */
  async takeAddress(fixed: string | undefined): Promise<string> {
    const dhcp = "udhcpc -i eth0 -n -q -f -t 6 -T 2 -s /usr/share/udhcpc/default.script >/dev/null 2>&1";
    const { stdout } = await this.sh(`killall udhcpc 2>/dev/null
      ip route flush dev eth0; ip addr flush dev eth0; ip link set eth0 up
      for i in 1 2 3 4 5 6 7 8 9 10 11 12; do read -r up </sys/class/net/eth0/carrier && [ "$up" = 1 ] && break; sleep 0.5; done
      ${fixed ? `ip addr add ${fixed}/24 dev eth0` : dhcp}
      ip -o addr show dev eth0 | sed -n 's/.* inet \\([0-9.]*\\).*/\\1/p'`);
    return stdout.trim();
  }
  /** What servers say to this guest, asked at the same time; empty: nobody answers. */
  async ask(targets: readonly { address: string; port: number }[]): Promise<string[]> {
    const lines = targets.map(({ address, port }, i) => `(nc -w ${CONNECT_SECONDS} ${address} ${port} </dev/null >/tmp/said${i} 2>/dev/null & pid=$!; (sleep ${CONNECT_SECONDS + 1}; kill $pid) 2>/dev/null & wait $pid) &`);
    const { stdout } = await this.sh(`${lines.join("\n")}\nwait\nfor i in ${targets.map((_, i) => i).join(" ")}; do cat /tmp/said$i; echo; done`);
    const said = stdout.split("\n");
    return targets.map((_, i) => said[i] ?? "");
  }
  async sh(line: string): Promise<{ status: number; stdout: string }> {
    let stdout = "";
    const onOutput = (stream: "stdout" | "stderr", data: Uint8Array): void => {
      if (stream === "stdout") stdout += Buffer.from(data).toString();
    };
    const status = await execIn(this.#orchestrator, { name: this.name, command: ["sh", "-c", line], timeoutMs: 120_000, onOutput });
    return { status, stdout };
  }
}
