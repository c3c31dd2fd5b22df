import { isDeepStrictEqual } from "node:util";
import type { CaseResult, Report } from "../runner.ts";
import { DISCOVERY, MANAGEMENT } from "./cases-discovery.ts";
import { PULL } from "./cases-pull.ts";
import { PUSH } from "./cases-push.ts";
import { Fixtures, type DistributionCase, type Expectation, type Step } from "./steps.ts";

export const DISTRIBUTION_CASES: readonly DistributionCase[] = [...PULL, ...PUSH, ...DISCOVERY, ...MANAGEMENT];

export interface DistributionRunOptions {
  /** Cases ("DIST-12") that are known to fail; it is an error when one passes. */
  readonly knownFailures?: readonly string[];
  readonly filter?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly fetch?: typeof fetch;
  readonly caseTimeoutMs?: number;
  readonly onResult?: (result: CaseResult) => void;
}

const CASE_TIMEOUT_MS = 30_000;

/** Runs the cases against any registry, ours or another's. They leave repositories named conformance-… behind. */
export async function runDistributionSuite(url: string, options: DistributionRunOptions = {}): Promise<Report> {
  const known = options.knownFailures ?? [];
  const results: CaseResult[] = [];
  for (const testCase of DISTRIBUTION_CASES) {
    const name = `${testCase.id}: ${testCase.title}`;
    if (options.filter && !name.includes(options.filter)) continue;
    const start = performance.now();
    const failure = await runDistributionCase(url, testCase, options).then(
      () => undefined,
      (error: unknown) => (error as Error).message,
    );
    const mayFail = known.includes(testCase.id);
    const outcome = failure === undefined ? (mayFail ? "unexpected-pass" : "passed") : mayFail ? "known-failure" : "failed";
    const title = `${testCase.title} (${testCase.level}, "${testCase.section}")`;
    const result: CaseResult = { requirement: testCase.id, title, outcome, ms: Math.round(performance.now() - start), ...(failure === undefined ? {} : { reason: failure }) };
    results.push(result);
    options.onResult?.(result);
  }
  const counts = { passed: 0, failed: 0, skipped: 0, "known-failure": 0, "unexpected-pass": 0 };
  for (const { outcome } of results) counts[outcome]++;
  const stale = known.filter((id) => !DISTRIBUTION_CASES.some((each) => each.id === id));
  return { service: "oci-distribution", results, counts, stale, ok: counts.failed === 0 && counts["unexpected-pass"] === 0 && stale.length === 0 };
}

/** Throws what was not as the specification says. */
export async function runDistributionCase(url: string, testCase: DistributionCase, options: DistributionRunOptions = {}): Promise<void> {
  const unique = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 7)}`;
  const names = { name: `conformance-${unique}/a`, other: `conformance-${unique}/b` };
  const variables = new Map<string, string>(Object.entries(names));
  for (const step of testCase.steps(new Fixtures(unique))) await runStep(url, step, variables, options);
}

async function runStep(base: string, step: Step, variables: Map<string, string>, options: DistributionRunOptions): Promise<void> {
  const url = new URL(fill(step.path, variables), base);
  const response = await (options.fetch ?? fetch)(url, {
    method: step.method,
    redirect: "follow",
    headers: { ...options.headers, ...step.headers },
    signal: AbortSignal.timeout(options.caseTimeoutMs ?? CASE_TIMEOUT_MS),
    ...(step.body === undefined ? {} : { body: step.body as Uint8Array<ArrayBuffer> }),
  });
  const bytes = new Uint8Array(await response.arrayBuffer());
  const wrong = compare(step.expect, response, bytes, variables);
  if (wrong !== undefined) throw new Error(`${step.method} ${url.pathname}${url.search}: ${wrong}`);
  for (const [variable, header] of Object.entries(step.save ?? {})) variables.set(variable, new URL(response.headers.get(header) ?? "", url).href);
}

/** What differs; undefined: nothing. */
function compare(expect: Expectation, response: Response, bytes: Uint8Array, variables: ReadonlyMap<string, string>): string | undefined {
  const text = (): string => new TextDecoder().decode(bytes.subarray(0, 300));
  if (!expect.status.includes(response.status)) return `status ${response.status}, expected ${expect.status.join(" or ")}; body: ${text()}`;
  for (const [name, wanted] of Object.entries(expect.headers ?? {})) {
    const got = response.headers.get(name);
    const fits = wanted === null ? got === null : got !== null && (typeof wanted === "string" ? got === fill(wanted, variables) : wanted.test(got));
    if (!fits) return `header ${name} is ${got === null ? "absent" : `"${got}"`}, expected ${wanted === null ? "none" : String(wanted)}`;
  }
  if (expect.body && !Buffer.from(bytes).equals(expect.body)) return `the body has ${bytes.length} bytes that are not the ${expect.body.length} expected`;
  if (expect.json !== undefined) {
    const got = parse(bytes);
    const where = differs(got, expect.json, "body", variables);
    if (where !== undefined) return where;
  }
  if (expect.error !== undefined && bytes.length > 0) {
    const got = (parse(bytes) as { errors?: { code?: string }[] } | undefined)?.errors?.[0]?.code;
    if (got !== expect.error) return `error code ${got ?? `absent (${text()})`}, expected ${expect.error}`;
  }
  return undefined;
}

function differs(got: unknown, wanted: unknown, where: string, variables: ReadonlyMap<string, string>): string | undefined {
  if (typeof wanted === "string") return got === fill(wanted, variables) ? undefined : `${where} is ${JSON.stringify(got)}, expected ${JSON.stringify(fill(wanted, variables))}`;
  if (Array.isArray(wanted)) {
    if (!Array.isArray(got) || got.length !== wanted.length) return `${where} is ${JSON.stringify(got)?.slice(0, 300)}, expected ${wanted.length} entries: ${JSON.stringify(wanted).slice(0, 300)}`;
    return first(wanted.map((each, i) => () => differs(got[i], each, `${where}[${i}]`, variables)));
  }
  if (typeof wanted === "object" && wanted !== null) {
    if ("unordered" in wanted) return differs(byDigest(got), byDigest(wanted.unordered), where, variables);
    if (typeof got !== "object" || got === null) return `${where} is ${JSON.stringify(got)}, expected an object`;
    return first(Object.entries(wanted).map(([key, each]) => () => differs((got as Record<string, unknown>)[key], each, `${where}.${key}`, variables)));
  }
  return isDeepStrictEqual(got, wanted) ? undefined : `${where} is ${JSON.stringify(got)}, expected ${JSON.stringify(wanted)}`;
}

const byDigest = (list: unknown): unknown => (Array.isArray(list) ? list.toSorted((a, b) => String(a?.digest).localeCompare(String(b?.digest))) : list);

function first(checks: readonly (() => string | undefined)[]): string | undefined {
  for (const check of checks) {
    const wrong = check();
    if (wrong !== undefined) return wrong;
  }
  return undefined;
}

/** `{x}` is x's value; `{x&}` too, ready for another query parameter. */
function fill(text: string, variables: ReadonlyMap<string, string>): string {
  return text.replaceAll(/\{(\w+)(&?)\}/g, (whole, name: string, more: string) => {
    const value = variables.get(name);
    return value === undefined ? whole : more ? `${value}${value.includes("?") ? "&" : "?"}` : value;
  });
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}
