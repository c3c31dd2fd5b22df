import { Environment, type ParseResult } from "@marcbachmann/cel-js";

/** A rule that cannot be installed: its text says where and why. */
export class RuleError extends Error {
  /** Offset in the expression, when it is the expression's fault. */
  readonly position: number | undefined;
  constructor(message: string, position?: number, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "RuleError";
    this.position = position;
  }
}

export interface ExpressionVariables {
  message: unknown;
  plane: string;
  method: string;
  machine: string;
  direction: string;
  /** Of rules on single frames. */
  frame?: unknown;
}
export type Expression = (variables: ExpressionVariables) => unknown;

const EXPRESSION_CHARACTERS_MAX = 4096;
const utf8 = new TextDecoder();

/** Functions beyond the CEL standard ones, for looking at and changing bytes. Documented in the README. */
const ENVIRONMENT = new Environment({ limits: { maxAstNodes: 2000, maxDepth: 64 } })
  .registerVariable("message", "dyn")
  .registerVariable("frame", "dyn")
  .registerVariable("plane", "string")
  .registerVariable("method", "string")
  .registerVariable("machine", "string")
  .registerVariable("direction", "string")
  .registerFunction("text(bytes): string", (bytes: Uint8Array) => utf8.decode(bytes))
  .registerFunction("hex(bytes): string", (bytes: Uint8Array) => Buffer.from(bytes).toString("hex"))
  .registerFunction("byteAt(bytes, int): int", (bytes: Uint8Array, index: bigint) => BigInt(bytes[within(bytes, index)]!))
  .registerFunction("setByte(bytes, int, int): bytes", (bytes: Uint8Array, index: bigint, value: bigint) =>
    bytes.slice().fill(Number(value & 0xffn), within(bytes, index), within(bytes, index) + 1),
  )
  .registerFunction("replace(string, string, string): string", (text: string, from: string, to: string) => text.replaceAll(from, to))
  .registerFunction("replace(bytes, string, string): bytes", (bytes: Uint8Array, from: string, to: string) =>
    replaceBytes(bytes, Buffer.from(from), Buffer.from(to)),
  )
  .registerFunction("replace(bytes, bytes, bytes): bytes", replaceBytes);

function within(bytes: Uint8Array, index: bigint): number {
  if (index < 0n || index >= BigInt(bytes.length)) throw new Error(`index ${index} is outside ${bytes.length} bytes`);
  return Number(index);
}

function replaceBytes(bytes: Uint8Array, from: Uint8Array, to: Uint8Array): Uint8Array {
  if (from.length === 0) return bytes;
  const source = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const parts: Uint8Array[] = [];
  let start = 0;
  for (let at = source.indexOf(from); at >= 0; at = source.indexOf(from, start)) {
    parts.push(source.subarray(start, at), to);
    start = at + from.length;
  }
  if (start === 0) return bytes;
  const joined = Buffer.concat([...parts, source.subarray(start)]);
  return new Uint8Array(joined.buffer, joined.byteOffset, joined.length);
}

/** Parses and type-checks once. Throws {@link RuleError} with the position. */
export function compileExpression(text: string, what: string, mustBe?: "bool"): Expression {
  if (text.length > EXPRESSION_CHARACTERS_MAX) {
    throw new RuleError(`${what}: ${text.length} characters, at most ${EXPRESSION_CHARACTERS_MAX}`);
  }
  let parsed: ParseResult;
  try {
    parsed = ENVIRONMENT.parse(text);
  } catch (error) {
    throw expressionError(what, error);
  }
  const check = parsed.check();
  if (!check.valid) throw expressionError(what, check.error);
  if (mustBe && check.type !== mustBe && check.type !== "dyn") throw new RuleError(`${what}: is a ${check.type}, expected ${mustBe}`);
  return parsed as unknown as Expression;
}

function expressionError(what: string, error: any): RuleError {
  const position: number | undefined = error?.range?.start;
  // `message` of the library shows the line with a caret under the place.
  return new RuleError(`${what}${position === undefined ? "" : ` at offset ${position}`}: ${error?.message ?? error}`, position, { cause: error });
}
