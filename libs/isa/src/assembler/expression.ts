/**
 * Integer expressions of the assembler, with the operators of C and its precedence:
 * numbers (10, 0x1f, 0b101), characters ('a', '\n'), symbols, `.`, local labels (1b, 1f), ( ), unary - ~ +,
 * * / % << >> & ^ | + -, %hi(e) and %lo(e) (the parts for lui and addi), %pcrel_hi(e) (the part for auipc).
 */

/** Value of a symbol; undefined while it is not known yet (first pass). */
export type Lookup = (symbol: string) => bigint | undefined;

/** What the expression needs is not known yet. */
export class UnknownSymbol extends Error {
  readonly symbol: string;
  constructor(symbol: string) {
    super(`symbol ${symbol} is not defined`);
    this.symbol = symbol;
  }
}

const TOKEN = /\s*(?:(0[xX][0-9a-fA-F_]+|0[bB][01_]+(?![\w])|\d+[bf](?!\w)|\d[\d_]*)|('(?:\\.|[^\\'])')|(%hi|%lo|%pcrel_hi)|([A-Za-z_.$][\w.$]*)|(<<|>>|[-+*/%&|^~()]))/y;

const PRECEDENCE: Readonly<Record<string, number>> = { "|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4, "+": 5, "-": 5, "*": 6, "/": 6, "%": 6 };

export const ESCAPES: Readonly<Record<string, number>> = { n: 10, t: 9, r: 13, 0: 0, b: 8, f: 12, a: 7, v: 11, e: 27, "\\": 92, "'": 39, '"': 34 };

type Token = { readonly kind: "number" | "character" | "part" | "symbol" | "operator"; readonly text: string };

export function evaluateExpression(text: string, lookup: Lookup): bigint {
  const tokens = tokenize(text);
  let position = 0;
  const peek = (): Token | undefined => tokens[position];
  const fail = (): never => {
    const token = peek();
    throw new Error(`expression "${text.trim()}": expected a value or an operator, got ${token ? `"${token.text}"` : "the end"}`);
  };
  const expect = (operator: string): void => {
    if (peek()?.text !== operator) fail();
    position++;
  };

  const primary = (): bigint => {
    const token = peek();
    if (!token) return fail();
    position++;
    switch (token.kind) {
      case "number": return /^\d+[bf]$/.test(token.text) ? known(token.text) : BigInt(token.text.replaceAll("_", ""));
      case "character": return BigInt(characterCode(token.text.slice(1, -1)));
      case "symbol": return known(token.text);
      case "part": {
        expect("(");
        const value = binary(0);
        expect(")");
        if (token.text === "%lo") return BigInt.asIntN(12, value);
        return token.text === "%hi" ? highPart(value) : highPart(pcRelative(value, known(".")));
      }
      default:
    }
    if (token.text === "(") {
      const value = binary(0);
      expect(")");
      return value;
    }
    if (token.text === "-") return -primary();
    if (token.text === "~") return ~primary();
    if (token.text === "+") return primary();
    position--;
    return fail();
  };
  const known = (symbol: string): bigint => {
    const value = lookup(symbol);
    if (value === undefined) throw new UnknownSymbol(symbol);
    return value;
  };
  const binary = (lowest: number): bigint => {
    let left = primary();
    for (;;) {
      const token = peek();
      const operator = token?.kind === "operator" ? token.text : "";
      const precedence = PRECEDENCE[operator];
      if (precedence === undefined || precedence <= lowest) return left;
      position++;
      left = apply(operator, left, binary(precedence));
    }
  };

  const value = binary(0);
  if (position !== tokens.length) fail();
  return value;
}

/** Bits 31:12, rounded so that adding the sign-extended low 12 bits gives the value. */
function highPart(value: bigint): bigint {
  return BigInt.asUintN(20, (value + 0x800n) >> 12n);
}

function pcRelative(value: bigint, address: bigint): bigint {
  const distance = BigInt.asIntN(64, value - address);
  if (distance < -(1n << 31n) - 0x800n || distance >= (1n << 31n) - 0x800n) {
    throw new Error(`0x${value.toString(16)} is out of the +-2 GiB reach of 0x${address.toString(16)}`);
  }
  return distance;
}

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  const source = text.trimEnd();
  while (TOKEN.lastIndex < source.length) {
    const start = TOKEN.lastIndex;
    const match = TOKEN.exec(source);
    if (!match) throw new Error(`expression "${text.trim()}": cannot read "${source.slice(start).trim()}"`);
    const [, number, character, part, symbol, operator] = match;
    if (number !== undefined) tokens.push({ kind: "number", text: number });
    else if (character !== undefined) tokens.push({ kind: "character", text: character });
    else if (part !== undefined) tokens.push({ kind: "part", text: part });
    else if (symbol !== undefined) tokens.push({ kind: "symbol", text: symbol });
    else tokens.push({ kind: "operator", text: operator ?? "" });
  }
  return tokens;
}

function apply(operator: string, a: bigint, b: bigint): bigint {
  switch (operator) {
    case "|": return a | b;
    case "^": return a ^ b;
    case "&": return a & b;
    case "<<": case ">>":
      if (b < 0n || b > 64n) throw new Error(`shift by ${b}: expected 0..64`);
      return operator === "<<" ? a << b : a >> b;
    case "+": return a + b;
    case "-": return a - b;
    case "*": return a * b;
    default:
      if (b === 0n) throw new Error("division by zero");
      return operator === "/" ? a / b : a % b;
  }
}

function characterCode(text: string): number {
  if (!text.startsWith("\\")) return text.codePointAt(0) ?? 0;
  const code = ESCAPES[text.slice(1)];
  if (code === undefined) throw new Error(`character '${text}': unknown escape`);
  return code;
}
