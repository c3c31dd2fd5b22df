import { formatResult, formatSummary, loadSuite, runSuite, SUITE_NAMES } from "@polyvisor/conformance";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { Argument, type Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { EXIT_FAILURE } from "../cli-error.ts";
import { parseSeconds } from "../format/quantity.ts";

interface ConformOptions {
  endpoint: string;
  feature?: string[];
  knownFailure?: string[];
  filter?: string;
  timeout: string;
  json?: boolean;
}

const collect = (value: string, all: string[] = []): string[] => [...all, value];

export function addConformCommand(program: Command, cli: Cli): void {
  addCommand(program, "conform", "test a running process against the contract of a service, whoever wrote it", [
    ["hv conform memory-manager --endpoint unix:/run/mm.sock", ""],
    ["hv conform cpu-emulator --endpoint localhost:7001 --filter CPU-3", "some of the cases"],
    ["hv conform orchestrator --endpoint unix:/run/orc.sock --feature boot", "with cases that need a feature"],
  ])
    .addArgument(new Argument("<service>", "whose contract").choices(SUITE_NAMES))
    .requiredOption("--endpoint <address>", "gRPC target: unix:/path or host:port")
    .option("--feature <name>", "the process has this optional feature; may be given more than once", collect)
    .option("--known-failure <requirement>", "may fail; it is an error if it passes", collect)
    .option("--filter <text>", "only cases whose number or title has this")
    .option("--timeout <seconds>", "for one case", "30")
    .action(async (service: string, options: ConformOptions) => {
      const suite = await loadSuite(service);
      const connection = connectGrpc(suite.contract, options.endpoint);
      try {
        await connection.ready();
        const report = await runSuite(suite, connection.port, {
          ...(options.feature ? { features: options.feature } : {}),
          ...(options.knownFailure ? { knownFailures: options.knownFailure } : {}),
          ...(options.filter ? { filter: options.filter } : {}),
          caseTimeoutMs: parseSeconds(options.timeout) * 1000,
          onResult: (result) => !options.json && cli.print(formatResult(result)),
        });
        cli.answer(options, report, () => formatSummary(report));
        if (!report.ok) cli.exitCode = EXIT_FAILURE;
      } finally {
        connection.close();
      }
    });
}
