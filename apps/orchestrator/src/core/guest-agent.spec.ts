import { channelPair } from "@polyvisor/contracts";
import type { ConsoleInput, ConsoleOutput } from "@polyvisor/contracts/device";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestAgent } from "./guest-agent.ts";
import { LineReader, MAX_LINE_BYTES } from "./line-reader.ts";
import { shellLine } from "./shell-quote.ts";
import { spawnSync } from "node:child_process";

function bench(): { agent: GuestAgent; sent: string[]; guest: (text: string) => void; close: () => void } {
  const [host, board] = channelPair<ConsoleInput, ConsoleOutput>();
  const sent: string[] = [];
  board.onMessage((input) => sent.push(new TextDecoder().decode(input.data)));
  const agent = new GuestAgent(host, { machine: "web", console: "agent", firstId: 7 });
  const guest = (text: string): void => void board.send({ machine: "web", console: "agent", data: new TextEncoder().encode(text) });
  return { agent, sent, guest, close: () => board.close() };
}

describe("GuestAgent", () => {
  it("is ready at HELLO, also one that comes byte by byte", () => {
    const { agent, guest } = bench();
    for (const byte of "HELLO 1\r\n") guest(byte);
    expect(agent.ready).toBe(true);
  });

  it("two commands may run at once; output goes to whom it belongs", async () => {
    const { agent, guest, sent } = bench();
    const out: string[] = [];
    const first = agent.exec("a", (stream, data) => out.push(`1 ${stream} ${Buffer.from(data)}`));
    const second = agent.exec("b", (stream, data) => out.push(`2 ${stream} ${Buffer.from(data)}`));
    expect(sent).toEqual(["EXEC 7 YQ==\n", "EXEC 8 Yg==\n"]);
    guest(`OUT 8 ${btoa("two")}\nERR 7 ${btoa("one")}\nEXIT 8 0\nEXIT 7 255\n`);
    expect(await Promise.all([first, second])).toEqual([255, 0]);
    expect(out).toEqual(["2 stdout two", "1 stderr one"]);
  });

  it("commands fail when the agent is restarted or the machine stops, and when their status is nonsense", async () => {
    const { agent, guest, close } = bench();
    guest("HELLO 1\n");
    const restarted = agent.exec("a", () => {});
    guest("HELLO 1\n");
    await expect(restarted).rejects.toThrow("restarted");
    const nonsense = agent.exec("b", () => {});
    guest("EXIT 8 -1e9\n");
    await expect(nonsense).rejects.toThrow("-1e9");
    const stopped = agent.exec("c", () => {});
    close();
    await expect(stopped).rejects.toThrow("the machine stopped");
  });

  it("nothing that a guest sends throws", () => {
    const words = fc.constantFrom("HELLO", "PONG", "OUT", "ERR", "EXIT", "EXEC", "\0", "%$", "-1", "7", "\u00ff", "=", "AAAA");
    fc.assert(
      fc.property(fc.array(fc.array(words, { maxLength: 5 }), { maxLength: 20 }), (lines) => {
        const { agent, guest } = bench();
        agent.exec("x", () => {}).catch(() => {});
        guest(`${lines.map((line) => line.join(" ")).join("\n")}\n`);
      }),
    );
  });
});

describe("LineReader", () => {
  it("drops a line that is too long and reads on after it", () => {
    const lines: string[] = [];
    const reader = new LineReader((line) => lines.push(line));
    const long = new Uint8Array(MAX_LINE_BYTES + 10).fill(0x41);
    reader.push(long);
    reader.push(long);
    reader.push(new TextEncoder().encode("tail\nnext\npart"));
    reader.push(new TextEncoder().encode("ial\n"));
    expect(lines).toEqual(["next", "partial"]);
  });
});

describe("shellLine", () => {
  it("hands every argument to a POSIX shell exactly as it was", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: "binary" }).filter((text) => !/[\0\n\ud800-\udfff]/.test(text)), { minLength: 1, maxLength: 6 }), (argv) => {
        const { stdout } = spawnSync("sh", ["-c", shellLine(["printf", "%s\\n", ...argv])], { encoding: "utf8" });
        expect(stdout).toBe(argv.map((argument) => `${argument}\n`).join(""));
      }),
      { numRuns: 30 },
    );
  });
});
