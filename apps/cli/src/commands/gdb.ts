import type { Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { CliError } from "../cli-error.ts";
import { toJson } from "../format/json.ts";
import { parseCount } from "../format/quantity.ts";
import { GdbServer } from "../gdb/gdb-server.ts";
import { DEFAULT_MACHINE } from "./up.ts";

interface GdbOptions {
  port: string;
  once?: boolean;
  json?: boolean;
}

export function addGdbCommand(program: Command, cli: Cli): void {
  addCommand(program, "gdb [name]", "open a port on 127.0.0.1 for GDB; the machine stops while a debugger is attached, and goes on when it leaves", [
    ["hv gdb web", "any free port; prints the command to attach with; Ctrl-C ends it"],
    ["hv gdb web --port 1234 --once", "ends when the debugger leaves"],
    ["gdb-multiarch -ex 'target remote :1234' vmlinux", "with the kernel's symbols"],
    ["(gdb) monitor help", "page walks, physical addresses, what else there is"],
  ])
    .option("--port <n>", "port to listen on; 0 for any free one", "0")
    .option("--once", "serve one debugger, then end")
    .action(async (name: string | undefined, options: GdbOptions) => {
      const machine = name ?? DEFAULT_MACHINE;
      const port = parseCount(options.port, "--port", 0, 65_535);
      const { orchestrator } = await cli.stacks.ofMachine(machine);
      let end = (): void => {};
      const ended = new Promise<void>((resolve) => (end = resolve));
      const server = new GdbServer(orchestrator, machine, {
        attached: (peer) => cli.note(`a debugger from ${peer} is attached: ${machine} stands still until it is continued or the debugger leaves`),
        left: (why) => {
          cli.note(`the debugger has left${why ? `: ${why}` : ""}`);
          if (options.once) end();
        },
      });
      const listening = await server.listen(port).catch((error: NodeJS.ErrnoException) => {
        throw new CliError(`cannot listen on 127.0.0.1:${port}: ${error.code === "EADDRINUSE" ? "somebody else does; choose another --port" : error.message}`);
      });
      const command = `gdb-multiarch -ex 'set architecture riscv:rv64' -ex 'target remote 127.0.0.1:${listening}'`;
      cli.print(options.json ? toJson({ machine, address: "127.0.0.1", port: listening, command }) : command);
      process.once("SIGINT", end).once("SIGTERM", end);
      await ended;
      server.close();
    });
}
