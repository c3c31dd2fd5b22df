import { randomBytes } from "node:crypto";
import type { Port, ServiceDefinition } from "@polyvisor/contracts";
import type { ConformanceCase, ConformanceEnvironment, ConformanceSuite } from "./suite.ts";

/** "known-failure" is expected and fine; "unexpected-pass" is a known failure that passes: take it off the list. */
export type Outcome = "passed" | "failed" | "skipped" | "known-failure" | "unexpected-pass";

export interface CaseResult {
  readonly requirement: string;
  readonly title: string;
  readonly outcome: Outcome;
  readonly ms: number;
  /** Why it failed or was skipped. */
  readonly reason?: string;
}

export interface Report {
  readonly service: string;
  readonly results: readonly CaseResult[];
  readonly counts: Readonly<Record<Outcome, number>>;
  /** False when a case failed, a known failure passed, or a known failure matches no case. */
  readonly ok: boolean;
  /** Known failures that match no case. */
  readonly stale: readonly string[];
}

export interface RunOptions {
  /** What the implementation declares; cases that need more are skipped. */
  readonly features?: Iterable<string>;
  /** Runs only cases whose "<requirement>: <title>" contains this. */
  readonly filter?: string;
  /** Requirements ("MEM-7") or whole cases ("MEM-7: <title>") that may fail. */
  readonly knownFailures?: readonly string[];
  readonly caseTimeoutMs?: number;
  readonly onResult?: (result: CaseResult) => void;
}

const CASE_TIMEOUT_MS = 30_000;

/** Runs the cases one after another against any implementation's port, ours or another's, local or over gRPC. */
export async function runSuite<D extends ServiceDefinition>(suite: ConformanceSuite<D>, port: Port<D>, options: RunOptions = {}): Promise<Report> {
  const features = new Set(options.features);
  const known = options.knownFailures ?? [];
  const environment = createEnvironment(features);
  const results: CaseResult[] = [];
  for (const testCase of suite.cases) {
    const name = `${testCase.requirement}: ${testCase.title}`;
    if (options.filter && !name.includes(options.filter)) continue;
    const mayFail = known.includes(testCase.requirement) || known.includes(name);
    const result = await runCase(testCase, port, environment, options.caseTimeoutMs ?? CASE_TIMEOUT_MS, mayFail);
    results.push(result);
    options.onResult?.(result);
  }
  const counts = { passed: 0, failed: 0, skipped: 0, "known-failure": 0, "unexpected-pass": 0 };
  for (const { outcome } of results) counts[outcome]++;
  const stale = known.filter((entry) => !suite.cases.some((c) => c.requirement === entry || `${c.requirement}: ${c.title}` === entry));
  return {
    service: suite.contract.service,
    results,
    counts,
    stale,
    ok: counts.failed === 0 && counts["unexpected-pass"] === 0 && stale.length === 0,
  };
}

async function runCase<D extends ServiceDefinition>(
  testCase: ConformanceCase<D>,
  port: Port<D>,
  environment: ConformanceEnvironment,
  timeoutMs: number,
  mayFail: boolean,
): Promise<CaseResult> {
  const { requirement, title } = testCase;
  const missing = missingFeatures(testCase, environment.features);
  if (missing.length > 0) return { requirement, title, outcome: "skipped", ms: 0, reason: `needs ${missing.join(", ")}` };
  const start = performance.now();
  const elapsed = () => Math.round(performance.now() - start);
  try {
    await environment.within(timeoutMs, Promise.try(() => testCase.run(port, environment)), "end of the case");
    if (!mayFail) return { requirement, title, outcome: "passed", ms: elapsed() };
    return { requirement, title, outcome: "unexpected-pass", ms: elapsed(), reason: "is on the list of known failures and passes: take it off" };
  } catch (error) {
    return { requirement, title, outcome: mayFail ? "known-failure" : "failed", ms: elapsed(), reason: (error as Error)?.message ?? String(error) };
  }
}

export function missingFeatures(testCase: Pick<ConformanceCase<any>, "needs">, features: ReadonlySet<string>): string[] {
  return (testCase.needs ?? []).filter((feature) => !features.has(feature));
}

/** Names carry a random part, so that a suite can run twice against one process. */
export function createEnvironment(features: ReadonlySet<string>): ConformanceEnvironment {
  const run = randomBytes(3).toString("hex");
  let count = 0;
  return {
    features,
    unique: (prefix) => `${prefix}-${run}-${++count}`,
    within<T>(ms: number, promise: Promise<T>, what: string): Promise<T> {
      let timer: ReturnType<typeof setTimeout>;
      const late = new Promise<never>((_resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`no ${what} within ${ms} ms`)), ms);
      });
      return Promise.race([promise, late]).finally(() => clearTimeout(timer));
    },
  };
}

const MARK: Record<Outcome, string> = { passed: "ok", failed: "FAILED", skipped: "skipped", "known-failure": "known", "unexpected-pass": "PASSES" };

/** One line per case. */
export function formatResult({ requirement, title, outcome, ms, reason }: CaseResult): string {
  return `${MARK[outcome].padEnd(8)} ${requirement}: ${title} (${ms} ms)${reason ? `\n         ${reason.split("\n").join("\n         ")}` : ""}`;
}

/** The last lines of a run. */
export function formatSummary({ service, counts, stale, ok }: Report): string {
  const parts = [`${counts.passed} passed`, `${counts.failed + counts["unexpected-pass"]} failed`, `${counts.skipped} skipped`];
  if (counts["known-failure"] > 0) parts.push(`${counts["known-failure"]} known failures`);
  const lines = stale.map((entry) => `known failure "${entry}" matches no case: take it off the list`);
  return [...lines, `${service}: ${parts.join(", ")}: ${ok ? "conforms" : "does not conform"}`].join("\n");
}
