import { formatResult, formatSummary, loadSuite, runSuite, SUITE_NAMES } from "@polyvisor/conformance";
import { runDistributionSuite } from "@polyvisor/conformance/distribution";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { Argument, type Command } from "commander";
import { addCommand, type Cli } from "../cli.ts";
import { EXIT_FAILURE, UsageError } from "../cli-error.ts";
import { parseSeconds } from "../format/quantity.ts";
import { NEIGHBOURS_FEATURE, serveNeighbours } from "./conform-neighbours.ts";

interface ConformOptions {
  endpoint: string;
  feature?: string[];
  knownFailure?: string[];
  filter?: string;
  neighbours?: string;
  timeout: string;
  json?: boolean;
}

/** The registry's HTTP API, which is not ours: its suite runs against any registry. */
const DISTRIBUTION = "oci-distribution";

const collect = (value: string, all: string[] = []): string[] => [...all, value];

export function addConformCommand(program: Command, cli: Cli): void {
  addCommand(program, "conform", "test a running process against the contract of a service, whoever wrote it", [
    ["hv conform memory-manager --endpoint unix:/run/mm.sock", ""],
    ["hv conform cpu-emulator --endpoint localhost:7001 --filter CPU-3", "some of the cases"],
    ["hv conform cpu-emulator --endpoint unix:/tmp/n/cpu.sock --neighbours /tmp/n", "all cases; yours calls /tmp/n/memory-manager.sock and device-bus.sock"],
    ["hv conform oci-distribution --endpoint http://127.0.0.1:5000", "any OCI registry; repositories conformance-… stay behind in it"],
    ["hv conform orchestrator --endpoint unix:/run/orc.sock --feature boot", "with cases that need a feature"],
  ])
    .addArgument(new Argument("<service>", "whose contract").choices([...SUITE_NAMES, DISTRIBUTION]))
    .requiredOption("--endpoint <address>", "gRPC target: unix:/path or host:port; a URL for oci-distribution")
    .option("--feature <name>", "the process has this optional feature; may be given more than once", collect)
    .option("--known-failure <requirement>", "may fail; it is an error if it passes", collect)
    .option("--filter <text>", "only cases whose number or title has this")
    .option("--neighbours <directory>", "cpu-emulator: serve the neighbours that its cases need on memory-manager.sock and device-bus.sock there")
    .option("--timeout <seconds>", "for one case", "30")
    .action(async (service: string, options: ConformOptions) => {
      if (options.neighbours && service !== "cpu-emulator") throw new UsageError("--neighbours is for cpu-emulator: the cases of the others need none");
      if (service === DISTRIBUTION) return conformDistribution(cli, options);
      const suite = await loadSuite(service);
      const features = [...(options.feature ?? []), ...(options.neighbours ? [NEIGHBOURS_FEATURE] : [])];
      const endNeighbours = options.neighbours ? await serveNeighbours(options.neighbours) : () => {};
      const connection = connectGrpc(suite.contract, options.endpoint);
      try {
        await connection.ready();
        const report = await runSuite(suite, connection.port, {
          features,
          ...(options.knownFailure ? { knownFailures: options.knownFailure } : {}),
          ...(options.filter ? { filter: options.filter } : {}),
          caseTimeoutMs: parseSeconds(options.timeout) * 1000,
          onResult: (result) => !options.json && cli.print(formatResult(result)),
        });
        cli.answer(options, report, () => formatSummary(report));
        if (!report.ok) cli.exitCode = EXIT_FAILURE;
      } finally {
        connection.close();
        endNeighbours();
      }
    });
}

async function conformDistribution(cli: Cli, options: ConformOptions): Promise<void> {
  if (!/^https?:\/\//.test(options.endpoint)) throw new UsageError(`--endpoint is "${options.endpoint}", expected the registry's URL, such as http://127.0.0.1:5000`);
  const report = await runDistributionSuite(options.endpoint, {
    ...(options.knownFailure ? { knownFailures: options.knownFailure } : {}),
    ...(options.filter ? { filter: options.filter } : {}),
    caseTimeoutMs: parseSeconds(options.timeout) * 1000,
    onResult: (result) => !options.json && cli.print(formatResult(result)),
  });
  cli.answer(options, report, () => formatSummary(report));
  if (!report.ok) cli.exitCode = EXIT_FAILURE;
}
