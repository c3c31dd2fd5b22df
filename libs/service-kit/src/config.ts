import { parseArgs, type ParseArgsOptionsConfig } from "node:util";
import { ContractError } from "@polyvisor/contracts";

/** How the text of a flag or an environment variable becomes a value. */
export interface OptionType<T> {
  /** What the help calls it, e.g. "N", "BYTES", "ADDRESS". */
  readonly placeholder: string;
  /** Throws an Error that says what was expected. */
  parse(text: string): T;
  show(value: T): string;
  /** True: the flag takes no value. */
  readonly toggle?: boolean;
}

export interface Option<T> {
  readonly doc: string;
  readonly type: OptionType<T>;
  /** Absent: the option must be given. */
  readonly default?: T;
  /** Default: the key in kebab case, so `grantPages` is `--grant-pages`. */
  readonly flag?: string;
  /** Default: `PV_` and the key in upper snake case, so `grantPages` is `PV_GRANT_PAGES`. */
  readonly env?: string;
}

/** One option per key of a service's configuration type. */
export type ConfigSchema<C> = { readonly [K in keyof C]-?: Option<C[K]> };
export type ConfigOf<S> = S extends ConfigSchema<infer C> ? C : never;

/** Declares what configures a service. A flag beats the environment, which beats the default. */
export function defineConfig<C>(schema: ConfigSchema<C>): ConfigSchema<C> {
  return schema;
}

export const text: OptionType<string> = { placeholder: "TEXT", parse: (value) => value, show: (value) => value };
export const path: OptionType<string> = { placeholder: "PATH", parse: (value) => value, show: (value) => value };
/** `unix:/path` or `host:port`. */
export const address: OptionType<string> = {
  placeholder: "ADDRESS",
  parse(value) {
    if (value !== "" && !/^unix:.+|^.+:\d+$/.test(value)) throw new Error('expected "unix:/path" or "host:port"');
    return value;
  },
  show: (value) => value,
};
export const toggle: OptionType<boolean> = {
  placeholder: "",
  toggle: true,
  parse(value) {
    if (["true", "1", "yes", "on"].includes(value)) return true;
    if (["false", "0", "no", "off", ""].includes(value)) return false;
    throw new Error("expected true or false");
  },
  show: String,
};
export function integer(minimum: number, maximum = Number.MAX_SAFE_INTEGER): OptionType<number> {
  return {
    placeholder: "N",
    parse(value) {
      const number = /^-?\d+$/.test(value) ? Number(value) : NaN;
      if (!(number >= minimum && number <= maximum)) throw new Error(`expected a whole number from ${minimum} to ${maximum}`);
      return number;
    },
    show: String,
  };
}
/** "268435456", "256K", "256M", "4G": powers of 1024. */
export const byteCount: OptionType<number> = {
  placeholder: "BYTES",
  parse(value) {
    const match = /^(\d+)([KMGT])?i?B?$/i.exec(value);
    const bytes = match ? Number(match[1]) * 1024 ** ["", "K", "M", "G", "T"].indexOf((match[2] ?? "").toUpperCase()) : NaN;
    if (!Number.isSafeInteger(bytes)) throw new Error("expected bytes such as 4096, 256M or 4G");
    return bytes;
  },
  show: String,
};
export function choice<const T extends string>(...values: T[]): OptionType<T> {
  return {
    placeholder: values.join("|"),
    parse(value) {
      if (!values.includes(value as T)) throw new Error(`expected one of ${values.join(", ")}`);
      return value as T;
    },
    show: (value) => value,
  };
}

const kebab = (key: string) => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
export const flagOf = (key: string, option: Option<any>) => option.flag ?? kebab(key);
export const envOf = (key: string, option: Option<any>) => option.env ?? `PV_${kebab(key).replaceAll("-", "_").toUpperCase()}`;

/** Reads a configuration; throws "invalid" with every problem at once. */
export function parseConfig<C>(
  schema: ConfigSchema<C>,
  argv: readonly string[] = process.argv.slice(2),
  env: Readonly<Record<string, string | undefined>> = process.env,
): C {
  const options = Object.entries(schema) as [string, Option<any>][];
  const parseOptions: ParseArgsOptionsConfig = {};
  for (const [key, option] of options) parseOptions[flagOf(key, option)] = { type: option.type.toggle ? "boolean" : "string" };
  let flags: Record<string, unknown>;
  try {
    flags = parseArgs({ args: [...argv], options: parseOptions, allowNegative: true }).values;
  } catch (error) {
    throw new ContractError("invalid", `${(error as Error).message}; --help lists the options`, { cause: error });
  }
  const config: Record<string, unknown> = {};
  const problems: string[] = [];
  for (const [key, option] of options) {
    const flag = flagOf(key, option);
    const name = envOf(key, option);
    const [value, from] = flags[flag] !== undefined ? [String(flags[flag]), `--${flag}`] : [env[name], name];
    if (value === undefined) {
      if (Object.hasOwn(option, "default")) config[key] = option.default;
      else problems.push(`--${flag} (or ${name}) is missing: ${option.doc}`);
      continue;
    }
    try {
      config[key] = option.type.parse(value);
    } catch (error) {
      problems.push(`${from}: ${(error as Error).message}, got "${value}"`);
    }
  }
  if (problems.length > 0) throw new ContractError("invalid", `configuration: ${problems.join("; ")}`);
  return config as C;
}

/** The table that `--help` prints. */
export function describeConfig(title: string, schema: ConfigSchema<any>): string {
  const rows = Object.entries(schema).map(([key, option]) => {
    const flag = `--${flagOf(key, option)}${option.type.toggle ? "" : ` ${option.type.placeholder}`}`;
    const fallback = Object.hasOwn(option, "default") ? `default ${option.type.show(option.default) || "none"}` : "required";
    return [flag, envOf(key, option), `${option.doc} (${fallback})`] as const;
  });
  const width = (column: 0 | 1) => Math.max(...rows.map((row) => row[column].length));
  const [first, second] = [width(0), width(1)];
  return `${title}\n\n${rows.map(([flag, env, doc]) => `  ${flag.padEnd(first)}  ${env.padEnd(second)}  ${doc}`).join("\n")}\n`;
}
