import type { Command } from "commander";
import { describe, expect, it } from "vitest";
import { Cli } from "./cli.ts";
import { createProgram } from "./program.ts";

/** The program with its output captured; nothing here reaches a stack. */
function program(): { root: Command; output: () => string } {
  let text = "";
  const sink = { write: (chunk: string) => ((text += chunk), true) };
  const cli = new Cli({ ...process, env: { HV_HOME: "/nonexistent" }, stdin: process.stdin, stdout: sink, stderr: sink } as unknown as NodeJS.Process);
  return { root: createProgram(cli), output: () => text };
}

function leaves(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leaves);
}

describe("hv", () => {
  it("every command says what it does and knows --json", () => {
    for (const command of leaves(program().root)) {
      expect(command.description(), command.name()).not.toBe("");
      expect(command.options.map((option) => option.long), command.name()).toContain("--json");
    }
  });

  it("has the commands that the manual promises", () => {
    const names = leaves(program().root).map((command) => [command.parent!.name(), command.name()].join(" "));
    expect(names).toEqual([
      "hv up",
      "hv run",
      "hv console",
      "hv exec",
      "hv ssh",
      "hv ssh-config",
      "hv status",
      "hv halt",
      "hv destroy",
      "hv suspend",
      "hv resume",
      "snapshot save",
      "snapshot restore",
      "snapshot ls",
      "snapshot rm",
      "snapshot export",
      "hv import",
      "hv clone",
      "disk ls",
      "disk origins",
      "disk export",
      "disk import",
      "disk resize",
      "disk commit",
      "disk diff",
      "box ls",
      "box add",
      "box inspect",
      "box build",
      "box rm",
      "box prune",
      "box outdated",
      "box search",
      "hv package",
      "hv push",
      "hv pull",
      "image layers",
      "image which",
      "image diff",
      "registry show",
      "registry gc",
      "net create",
      "net rm",
      "net ls",
      "net inspect",
      "net leases",
      "net flows",
      "net graph",
      "net link",
      "net move",
      "net plug",
      "net unplug",
      "net impair",
      "net capture",
      "forward add",
      "forward ls",
      "forward rm",
      "net check",
      "hv services",
      "hv trace",
      "mediate add",
      "mediate ls",
      "mediate rm",
      "hv stats",
      "hv translate",
      "cpu regs",
      "cpu disas",
      "cpu walk",
      "cpu hot",
      "hv gdb",
      "hv set",
      "hv leaks",
      "hv conform",
      "stack up",
      "stack down",
      "stack ls",
      "stack logs",
    ]);
  });

  it.each([
    [["frobnicate"], /unknown command/],
    [["up", "--topology", "cloud"], /Allowed choices are embedded, processes/],
    [["exec", "web", "ls", "-l"], /hv exec NAME -- CMD -x/],
    [["conform", "toaster", "--endpoint", "x"], /Allowed choices are/],
    [["conform", "orchestrator"], /--endpoint/],
  ])("%j is refused with a hint", async (argv, hint) => {
    const { root, output } = program();
    await expect(root.parseAsync(argv, { from: "user" })).rejects.toMatchObject({ exitCode: 1 });
    expect(output()).toMatch(hint);
  });

  it("--help of the program teaches a first machine, --help of a command shows examples", async () => {
    const first = program();
    await expect(first.root.parseAsync(["--help"], { from: "user" })).rejects.toMatchObject({ exitCode: 0 });
    expect(first.output()).toContain("$ hv up ");
    const second = program();
    await expect(second.root.parseAsync(["mediate", "add", "--help"], { from: "user" })).rejects.toMatchObject({ exitCode: 0 });
    expect(second.output()).toContain("Examples:");
  });
});
