/** Exit statuses of `hv` itself (a guest's command or program answers its own). */
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
/** As timeout(1). */
export const EXIT_TIMEOUT = 124;

/** Ends the program with a message for people: what was wrong and what to do next. */
export class CliError extends Error {
  readonly exitCode: number;
  constructor(message: string, exitCode: number = EXIT_FAILURE) {
    super(message);
    this.name = "CliError";
    this.exitCode = exitCode;
  }
}

export class UsageError extends CliError {
  constructor(message: string) {
    super(message, EXIT_USAGE);
    this.name = "UsageError";
  }
}
