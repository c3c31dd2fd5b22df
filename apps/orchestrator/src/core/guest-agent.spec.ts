import { channelPair } from "@polyvisor/contracts";
import type { ConsoleInput, ConsoleOutput } from "@polyvisor/contracts/device";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestAgent } from "./guest-agent.ts";
import { STDIN_PIECE_BYTES } from "./guest-command.ts";
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
    const first = agent.exec("a", false, (stream, data) => out.push(`1 ${stream} ${Buffer.from(data)}`)).ended;
    const second = agent.exec("b", false, (stream, data) => out.push(`2 ${stream} ${Buffer.from(data)}`)).ended;
    expect(sent).toEqual(["EXEC 7 YQ==\n", "EXEC 8 Yg==\n"]);
    guest(`OUT 8 ${btoa("two")}\nERR 7 ${btoa("one")}\nEXIT 8 0\nEXIT 7 255\n`);
    expect(await Promise.all([first, second])).toEqual([255, 0]);
    expect(out).toEqual(["2 stdout two", "1 stderr one"]);
  });

  it("standard input goes in pieces, as many at a time as the agent is ready for, and ends after the last", async () => {
    const { agent, guest, sent } = bench();
    guest("HELLO 2\n");
    const command = agent.exec("cat", true, () => {});
    let drains = 0;
    command.onDrain(() => drains++);
    const input = Uint8Array.from({ length: 20 * STDIN_PIECE_BYTES - 5 }, (_, index) => index % 251);
    expect(command.write(input)).toBe(false);
    command.endInput();
    expect(sent.splice(0)).toEqual([`EXEC-IN 7 ${btoa("cat")}\n`]);
    guest("ACK 7 3\n");
    expect(sent).toHaveLength(3);
    expect(drains).toBe(0);
    guest("ACK 8 9\nACK 7 -1\nACK 7 x\nACK 7 2\n");
    expect(sent).toHaveLength(5);
    expect(drains).toBe(1);
    for (let i = 0; i < 20; i++) guest("ACK 7 1\n");
    expect(sent.at(-1)).toBe("EOF 7\n");
    const pieces = sent.slice(0, -1).map((line) => Buffer.from(/^IN 7 (\S+)\n$/.exec(line)![1]!, "base64"));
    expect(Buffer.concat(pieces).equals(input)).toBe(true);
    expect(Math.max(...sent.map((line) => line.length))).toBeLessThan(4096);
    guest("EXIT 7 0\n");
    expect(await command.ended).toBe(0);
  });

  it("a command is killed once, and not after its end", async () => {
    const { agent, guest, sent } = bench();
    guest("HELLO 2\n");
    const command = agent.exec("sleep 9", false, () => {});
    command.kill();
    expect(sent.at(-1)).toBe("KILL 7\n");
    guest("EXIT 7 143\n");
    expect(await command.ended).toBe(143);
    command.kill();
    expect(sent).toHaveLength(2);
  });

  it("an agent that takes no standard input → unimplemented, with what to do", () => {
    const { agent, guest } = bench();
    guest("HELLO 1\n");
    expect(() => agent.exec("cat", true, () => {})).toThrow(/hv box build/);
  });

  it("commands fail when the agent is restarted or the machine stops, and when their status is nonsense", async () => {
    const { agent, guest, close } = bench();
    guest("HELLO 1\n");
    const restarted = agent.exec("a", false, () => {}).ended;
    guest("HELLO 1\n");
    await expect(restarted).rejects.toThrow("restarted");
    const nonsense = agent.exec("b", false, () => {}).ended;
    guest("EXIT 8 -1e9\n");
    await expect(nonsense).rejects.toThrow("-1e9");
    const stopped = agent.exec("c", false, () => {}).ended;
    close();
    await expect(stopped).rejects.toThrow("the machine stopped");
  });

  it("nothing that a guest sends throws", () => {
    const words = fc.constantFrom("HELLO", "PONG", "OUT", "ERR", "ACK", "EXIT", "EXEC", "\0", "%$", "-1", "7", "\u00ff", "=", "AAAA");
    fc.assert(
      fc.property(fc.array(fc.array(words, { maxLength: 5 }), { maxLength: 20 }), (lines) => {
        const { agent, guest } = bench();
        agent.exec("x", false, () => {}).ended.catch(() => {});
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
