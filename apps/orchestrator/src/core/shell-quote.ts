/**
 * One POSIX shell command line that runs `argv` with each argument exactly as given (POSIX.1-2017, 2.2.2: within
 * single quotes every character is literal; a single quote itself is closed, escaped, reopened).
 */
export function shellLine(argv: readonly string[]): string {
  return argv.map(quote).join(" ");
}

function quote(argument: string): string {
  if (/^[A-Za-z0-9_@%+=:,./-]+$/.test(argument)) return argument;
  return `'${argument.replaceAll("'", `'\\''`)}'`;
}
