import { ContractError } from "@polyvisor/contracts";
import { ImageSpecError } from "@polyvisor/image-spec";
import { OciClientError } from "@polyvisor/oci-client";
import { CommanderError } from "commander";
import { Cli } from "./cli.ts";
import { CliError, EXIT_FAILURE, EXIT_USAGE } from "./cli-error.ts";
import { createProgram } from "./program.ts";

const cli = new Cli(process);
// A reader that goes away (`hv trace web | head`) ends the program quietly.
process.stdout.on("error", () => process.exit(cli.exitCode));

try {
  await createProgram(cli).parseAsync(process.argv);
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed its message; help and version are not failures.
    cli.exitCode = error.exitCode === 0 ? 0 : EXIT_USAGE;
  } else if (error instanceof ContractError || error instanceof CliError || error instanceof OciClientError || error instanceof ImageSpecError) {
    cli.note(`${cli.color.red("hv:")} ${error.message}`);
    cli.exitCode = error instanceof CliError ? error.exitCode : EXIT_FAILURE;
  } else {
    cli.note(`${cli.color.red("hv:")} ${error instanceof Error ? error.stack : String(error)}`);
    cli.note("This is a bug of hv; the lines above say where.");
    cli.exitCode = EXIT_FAILURE;
  }
} finally {
  cli.stacks.close();
}
process.exitCode = cli.exitCode;
