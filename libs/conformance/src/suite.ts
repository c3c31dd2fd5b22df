import type { Contract, Port, ServiceDefinition } from "@polyvisor/contracts";

/** What a case may use besides the port under test. */
export interface ConformanceEnvironment {
  /** A machine / disk / network name that no other case uses. */
  unique(prefix: string): string;
  /** Fails the case when the promise does not settle in time. */
  within<T>(ms: number, promise: Promise<T>, what: string): Promise<T>;
  /** Optional features that the implementation under test declares (`--feature x`); cases that need others are skipped and listed. */
  readonly features: ReadonlySet<string>;
}

/** One requirement of a CONTRACT.md, tested from outside through the port alone. Throw to fail. */
export interface ConformanceCase<D extends ServiceDefinition> {
  /** Number in CONTRACT.md, e.g. "MEM-7". Several cases may test one. */
  readonly requirement: string;
  /** A sentence: state or input → outcome. */
  readonly title: string;
  readonly needs?: readonly string[];
  run(port: Port<D>, environment: ConformanceEnvironment): Promise<void>;
}

/** The cases that any implementation of a contract must pass, ours and others', local and over gRPC. */
export interface ConformanceSuite<D extends ServiceDefinition> {
  readonly contract: Contract<D>;
  readonly cases: readonly ConformanceCase<D>[];
}
