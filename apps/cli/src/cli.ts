import type { Command } from "commander";
import pc from "picocolors";
import { toJson } from "./format/json.ts";
import { homeOf, type Home } from "./stack/home.ts";
import { Stacks } from "./stack/stacks.ts";

/** What every command works with: the user's terminal, their files, and the stacks. */
export class Cli {
  readonly home: Home;
  readonly stacks: Stacks;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  readonly color = pc;
  /** What the process exits with when the command has ended without an error. */
  exitCode = 0;

  constructor(process: NodeJS.Process) {
    this.home = homeOf(process.env);
    this.stdin = process.stdin;
    this.stdout = process.stdout;
    this.stderr = process.stderr;
    this.stacks = new Stacks(this.home, (line) => this.note(line));
  }

  /** A result: stdout, nothing else goes there. */
  print(text: string): void {
    this.stdout.write(`${text}\n`);
  }
  /** A result, for people or (with --json) for programs. */
  answer(options: { json?: boolean }, value: unknown, text: () => string): void {
    this.print(options.json ? toJson(value) : text());
  }
  /** Progress and remarks: stderr. */
  note(text: string): void {
    this.stderr.write(`${text}\n`);
  }
}

/** A subcommand with the options that all have, and examples under its help. */
export function addCommand(program: Command, usage: string, description: string, examples: readonly [command: string, what: string][]): Command {
  const width = Math.max(0, ...examples.map(([command]) => command.length));
  const lines = examples.map(([command, what]) => `  $ ${command.padEnd(width)}   ${pc.dim(`# ${what}`)}`);
  return program
    .command(usage)
    .description(description)
    .option("--json", "answer in JSON")
    .addHelpText("after", examples.length > 0 ? `\nExamples:\n${lines.join("\n")}\n` : "");
}
