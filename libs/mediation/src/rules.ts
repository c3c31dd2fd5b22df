import { PLANES, type Counters, type Handling, type MediationPoint, type Mediator } from "./chain.ts";
import { corrupt, seededRandom } from "./corrupt.ts";
import { MessageDigest } from "./digest.ts";
import { compileExpression, RuleError, type Expression } from "./expression.ts";
import { assignFrame, corruptFrame, framePath, frameView, isBatch, LOST_FRAME, usesFrame, type BatchFrame } from "./frames.ts";
import { assignField, parsePath, viewOf } from "./view.ts";

export const ACTIONS = ["observe", "modify", "deny", "delay", "drop", "duplicate", "corrupt", "digest"] as const;
export type ActionName = (typeof ACTIONS)[number];

/** What a rule applies to. An absent or empty part matches anything. */
export interface Match {
  readonly plane?: string;
  readonly method?: string;
  readonly machine?: string;
  readonly direction?: string;
  /** CEL, a bool. */
  readonly expression?: string;
}

export interface Rule extends Match {
  /** Chosen by the rule set when absent or empty. */
  readonly id?: string;
  readonly action: ActionName;
  /** modify: field path → CEL expression. */
  readonly assign?: Readonly<Record<string, string>>;
  readonly delayMs?: number;
  /** corrupt: which bits flip. */
  readonly seed?: bigint;
}

/** One message on its way, as a plugin sees it. */
export interface Passage {
  readonly point: MediationPoint;
  readonly machine: string;
  readonly message: any;
}
/** What a plugin does with it; undefined: nothing. Messages are never changed in place: answer a copy. */
export type Verdict = ({ readonly hits?: bigint }) & (
  | { readonly action: "observe" | "drop" | "duplicate" }
  | { readonly action: "modify"; readonly message: unknown }
  | { readonly action: "deny"; readonly reason?: string }
  | { readonly action: "delay"; readonly ms: number }
);
export type Plugin = (passage: Passage) => Verdict | undefined;

/** A message that an observer sees, after the rules. */
export interface Observation extends Passage {
  readonly verdict: "executed" | "modified" | "denied" | "dropped";
}

export interface InstalledRule {
  readonly rule: Rule & { readonly id: string };
  readonly hits: bigint;
  /** Messages on which the rule failed and was skipped. */
  readonly errors: bigint;
  /** digest: of the messages so far. */
  readonly digest: string;
}

/** Where a rule that fails at run time is reported, once per rule. */
export type ReportRuleFailure = (id: string, reason: string) => void;

const RULES_MAX = 256;
const DELAY_MS_MAX = 60_000;

/** Builds a message's view for CEL once, when the first expression asks. */
class PassageInHand implements Passage {
  readonly point: MediationPoint;
  readonly machine: string;
  #message: unknown;
  #variables: Parameters<Expression>[0] | undefined;
  constructor(point: MediationPoint, machine: string, message: unknown) {
    this.point = point;
    this.machine = machine;
    this.#message = message;
  }
  get message(): unknown {
    return this.#message;
  }
  set message(message: unknown) {
    this.#message = message;
    this.#variables = undefined;
  }
  get variables(): Parameters<Expression>[0] {
    return (this.#variables ??= {
      message: viewOf(this.#message),
      plane: this.point.plane,
      method: this.point.method,
      machine: this.machine,
      direction: this.point.direction,
    });
  }
}

interface Entry {
  readonly rule: Rule & { readonly id: string };
  readonly condition: Expression | undefined;
  readonly decide: (passage: PassageInHand) => Verdict | undefined;
  readonly digest: MessageDigest | undefined;
  hits: bigint;
  errors: bigint;
}

interface ObserverEntry {
  readonly match: Match;
  readonly condition: Expression | undefined;
  /** The condition is about single frames: one that holds is enough. */
  readonly onFrames: boolean;
  readonly receive: (observation: Observation) => void;
}

/**
 * The rules of one process, in the order they were added. Each message meets the rules as they were when it came.
 */
export class RuleSet implements Mediator {
  active = false;
  readonly #report: ReportRuleFailure;
  #entries: readonly Entry[] = [];
  #observers: readonly ObserverEntry[] = [];
  #delayed = 0;
  #lastId = 0;

  constructor(report: ReportRuleFailure = () => {}) {
    this.#report = report;
  }

  /** Installs a rule behind the others. Throws {@link RuleError} when it can never work. */
  add(rule: Rule): Rule & { readonly id: string } {
    const condition = compileMatch(rule);
    if (usesFrame(rule.expression, ...Object.keys(rule.assign ?? {}), ...Object.values(rule.assign ?? {}))) {
      return this.#install(rule, undefined, frameDecisionOf(rule, condition));
    }
    const digest = rule.action === "digest" ? new MessageDigest() : undefined;
    return this.#install(rule, condition, decisionOf(rule, digest), digest);
  }

  /** Installs a function as a rule: `rules.plugin({ plane: "blocks" }, ({ message }) => ...)`. */
  plugin(match: Match & { readonly id?: string }, decide: Plugin): Rule & { readonly id: string } {
    return this.#install({ ...match, action: "observe" }, compileMatch(match), decide);
  }

  #install(rule: Rule, condition: Expression | undefined, decide: Entry["decide"], digest?: MessageDigest): Rule & { readonly id: string } {
    if (this.#entries.length >= RULES_MAX) throw new RuleError(`${RULES_MAX} rules are installed; remove one first`);
    const id = rule.id || this.#freeId();
    if (this.#entries.some((entry) => entry.rule.id === id)) throw new RuleError(`a rule with id "${id}" is installed; remove it first`);
    const named = { ...rule, id };
    this.#entries = [...this.#entries, { rule: named, condition, decide, digest, hits: 0n, errors: 0n }];
    this.#update();
    return named;
  }

  #freeId(): string {
    for (;;) {
      const id = `r${++this.#lastId}`;
      if (!this.#entries.some((entry) => entry.rule.id === id)) return id;
    }
  }

  /** False when there is no such rule. */
  remove(id: string): boolean {
    const before = this.#entries.length;
    this.#entries = this.#entries.filter((entry) => entry.rule.id !== id);
    this.#update();
    return this.#entries.length < before;
  }

  list(): InstalledRule[] {
    return this.#entries.map(({ rule, hits, errors, digest }) => ({ rule, hits, errors, digest: digest ? String(digest) : "" }));
  }

  /** Calls `receive` with every matching message after the rules; it must be quick. The answer stops it. */
  observe(match: Match, receive: (observation: Observation) => void): () => void {
    const observer = { match, condition: compileMatch(match), onFrames: usesFrame(match.expression), receive };
    this.#observers = [...this.#observers, observer];
    this.#update();
    return () => {
      this.#observers = this.#observers.filter((other) => other !== observer);
      this.#update();
    };
  }

  #update(): void {
    this.active = this.#entries.length > 0 || this.#observers.length > 0 || this.#delayed > 0;
  }

  handle<T>(point: MediationPoint, machine: string, message: T, handling: Handling<T>, counters: Counters): void {
    const run = () => new Walk(this, this.#entries, new PassageInHand(point, machine, message), handling, counters).step();
    if (handling.lane) handling.lane.enter(run);
    else run();
  }

  /** @internal */
  decide(entry: Entry, passage: PassageInHand): Verdict | undefined {
    try {
      if (!applies(entry.rule, passage) || !holds(entry.condition, passage.variables)) return undefined;
      const verdict = entry.decide(passage);
      if (verdict) entry.hits += verdict.hits ?? 1n;
      return verdict;
    } catch (error) {
      if (entry.errors++ === 0n) this.#report(entry.rule.id, (error as Error).message);
      return undefined;
    }
  }

  /** @internal */
  tell(passage: PassageInHand, verdict: Observation["verdict"]): void {
    for (const observer of this.#observers) {
      try {
        if (!applies(observer.match, passage) || !observed(observer, passage)) continue;
        observer.receive({ point: passage.point, machine: passage.machine, message: passage.message, verdict });
      } catch {
        // An observer never disturbs what it observes.
      }
    }
  }

  /** @internal */
  after(ms: number, run: () => void): void {
    this.#delayed++;
    setTimeout(() => {
      this.#delayed--;
      run();
      this.#update();
    }, ms);
  }
}

/** One message walking the rules; a delay suspends the walk. */
class Walk<T> {
  readonly #rules: RuleSet;
  readonly #entries: readonly Entry[];
  readonly #passage: PassageInHand;
  readonly #handling: Handling<T>;
  readonly #counters: Counters;
  #next = 0;
  #copies = 1;
  #modified = false;

  constructor(rules: RuleSet, entries: readonly Entry[], passage: PassageInHand, handling: Handling<T>, counters: Counters) {
    this.#rules = rules;
    this.#entries = entries;
    this.#passage = passage;
    this.#handling = handling;
    this.#counters = counters;
  }

  step(): void {
    const passage = this.#passage;
    while (this.#next < this.#entries.length) {
      const entry = this.#entries[this.#next++]!;
      const verdict = this.#rules.decide(entry, passage);
      switch (verdict?.action) {
        case "modify":
          passage.message = verdict.message;
          this.#modified = true;
          break;
        case "duplicate":
          this.#copies++;
          break;
        case "drop":
          this.#counters.dropped++;
          this.#rules.tell(passage, "dropped");
          return this.#handling.drop(passage.message as T);
        case "deny":
          this.#counters.denied++;
          this.#rules.tell(passage, "denied");
          return this.#handling.deny(verdict.reason ? `${entry.rule.id}: ${verdict.reason}` : entry.rule.id, passage.message as T);
        case "delay":
          this.#handling.lane?.hold();
          return this.#rules.after(verdict.ms, () => {
            this.step();
            this.#handling.lane?.release();
          });
      }
    }
    this.#deliver();
  }

  #deliver(): void {
    this.#counters.executed++;
    if (this.#modified) this.#counters.modified++;
    this.#counters.duplicated += this.#copies - 1;
    this.#rules.tell(this.#passage, this.#modified ? "modified" : "executed");
    for (let i = 0; i < this.#copies; i++) this.#handling.deliver(this.#passage.message as T);
  }
}

function applies(match: Match, { point, machine }: Passage): boolean {
  return (
    (!match.plane || match.plane === point.plane) &&
    (!match.method || match.method === point.method) &&
    (!match.direction || match.direction === point.direction) &&
    (!match.machine || match.machine === machine)
  );
}

/** An expression over a field that this message does not have (another oneof case, say) is false, not a failure. */
function holds(condition: Expression | undefined, variables: Parameters<Expression>[0]): boolean {
  if (!condition) return true;
  try {
    const value = condition(variables);
    if (typeof value !== "boolean") throw new Error(`the expression is a ${typeof value}, expected bool`);
    return value;
  } catch (error) {
    if ((error as { code?: string }).code === "no_such_key") return false;
    throw error;
  }
}

function compileMatch(match: Match): Expression | undefined {
  if (match.plane && !(PLANES as readonly string[]).includes(match.plane)) {
    throw new RuleError(`plane "${match.plane}" does not exist; planes are ${PLANES.join(", ")}`);
  }
  if (match.direction && match.direction !== "request" && match.direction !== "response") {
    throw new RuleError(`direction "${match.direction}" does not exist; directions are request, response`);
  }
  return match.expression ? compileExpression(match.expression, "expression", "bool") : undefined;
}

function decisionOf(rule: Rule, digest?: MessageDigest): (passage: PassageInHand) => Verdict | undefined {
  const { action } = rule;
  switch (action) {
    case "modify": {
      const assignments = Object.entries(rule.assign ?? {}).map(([path, text]) => ({
        path: pathOf(path),
        value: compileExpression(text, `assign ${path}`),
      }));
      if (assignments.length === 0) throw new RuleError("modify needs at least one assignment, such as read.sector = 1");
      return (passage) => {
        let { message } = passage;
        for (const { path, value } of assignments) message = assignField(message, path, value(passage.variables));
        return { action, message };
      };
    }
    case "delay": {
      const ms = rule.delayMs ?? 0;
      if (!(ms > 0 && ms <= DELAY_MS_MAX)) throw new RuleError(`delay of ${ms} ms: expected 1 to ${DELAY_MS_MAX}`);
      return () => ({ action, ms });
    }
    case "corrupt": {
      const random = seededRandom(rule.seed ?? 0n);
      return (passage) => ({ action: "modify", message: corrupt(passage.message, random) });
    }
    case "digest":
      return ({ point, message }) => {
        digest?.add(point, message);
        return { action: "observe" };
      };
    case "observe":
    case "deny":
    case "drop":
    case "duplicate":
      return () => ({ action });
    default:
      throw new RuleError(`action "${String(action)}" does not exist; actions are ${ACTIONS.join(", ")}`);
  }
}

function observed({ condition, onFrames }: ObserverEntry, passage: PassageInHand): boolean {
  if (!onFrames) return holds(condition, passage.variables);
  const { message } = passage;
  return isBatch(message) && message.frames.some((frame) => holds(condition, frameVariables(passage, frame)));
}

/** The variables of a rule about one frame; what the rest of the message holds is looked at only if the text asks. */
function frameVariables(passage: PassageInHand, frame: BatchFrame): Parameters<Expression>[0] {
  const { point, machine } = passage;
  return {
    get message() {
      return passage.variables.message;
    },
    plane: point.plane,
    method: point.method,
    machine,
    direction: point.direction,
    frame: frameView(frame),
  };
}

/** What a rule does with one frame that it matches: the frames in its place; undefined: the frame as it is. */
type FrameAction = (frame: BatchFrame, variables: () => Parameters<Expression>[0]) => readonly BatchFrame[] | undefined;

function frameActionOf(rule: Rule): FrameAction {
  const { action } = rule;
  switch (action) {
    case "modify": {
      const assignments = Object.entries(rule.assign ?? {}).map(([path, text]) => ({ path: framePath(path), value: compileExpression(text, `assign ${path}`) }));
      return (frame, variables) => {
        const known = variables();
        return assignments.reduce<BatchFrame[]>((frames, { path, value }) => frames.flatMap((each) => assignFrame(each, path, value(known))), [frame]);
      };
    }
    case "corrupt": {
      const random = seededRandom(rule.seed ?? 0n);
      return (frame) => [corruptFrame(frame, random)];
    }
    case "deny":
    case "drop":
      return () => [LOST_FRAME];
    case "duplicate":
      return (frame) => [frame, frame];
    default:
      return () => undefined; // observe; delay, which is the whole batch's
  }
}

/** A rule on single frames as one on their batch. */
function frameDecisionOf(rule: Rule, condition: Expression | undefined): Entry["decide"] {
  if (rule.action === "digest") throw new RuleError("a digest is of whole messages; leave `frame` out of the expression");
  const whole = decisionOf({ ...rule, assign: { ignored: "true" } }); // checks the action and its parameters
  const act = frameActionOf(rule);
  return (passage) => {
    const { message } = passage;
    if (!isBatch(message)) return undefined;
    let hits = 0n;
    let changed = false;
    const frames = message.frames.flatMap((frame) => {
      const variables = (): Parameters<Expression>[0] => frameVariables(passage, frame);
      if (frame.data.length === 0 || !holds(condition, variables())) return [frame];
      hits++;
      const instead = act(frame, variables);
      changed ||= instead !== undefined;
      return instead ?? [frame];
    });
    if (hits === 0n) return undefined;
    if (rule.action === "delay") return { ...whole(passage)!, hits };
    return changed ? { action: "modify", message: { ...message, frames }, hits } : { action: "observe", hits };
  };
}

function pathOf(path: string): string[] {
  try {
    return parsePath(path);
  } catch (error) {
    throw new RuleError((error as Error).message);
  }
}
