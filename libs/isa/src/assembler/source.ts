/** Assembly text to statements: comments, labels, mnemonics and operand texts. */

import { ESCAPES } from "./expression.ts";

/** A mistake in the source, with the line it is on. */
export class AssemblyError extends Error {
  override readonly name = "AssemblyError";
  readonly line: number;
  constructor(line: number, message: string) {
    super(`line ${line}: ${message}`);
    this.line = line;
  }
}

export interface Statement {
  /** 1-based. */
  readonly line: number;
  readonly labels: readonly string[];
  /** Instruction, pseudo-instruction or directive, in lower case; "" for a line with labels only. */
  readonly mnemonic: string;
  /** Separated by commas outside quotes and parentheses. */
  readonly operands: readonly string[];
}

const LABEL = /^\s*([A-Za-z_.$][\w.$]*|\d+)\s*:/;
const ASSIGNMENT = /^\s*([A-Za-z_.$][\w.$]*)\s*=([^=].*)$/;

export function parse(source: string): Statement[] {
  return source.split(/\r?\n/).flatMap((text, index) =>
    split(text, ";", true).flatMap((part) => statement(part, index + 1)));
}

function statement(text: string, line: number): Statement[] {
  const labels: string[] = [];
  let rest = text;
  for (let match = LABEL.exec(rest); match; match = LABEL.exec(rest)) {
    labels.push(match[1] ?? "");
    rest = rest.slice(match[0].length);
  }
  const assignment = ASSIGNMENT.exec(rest);
  if (assignment) return [{ line, labels, mnemonic: ".equ", operands: [assignment[1] ?? "", assignment[2] ?? ""] }];
  const [, mnemonic = "", tail = ""] = /^\s*(\S*)\s*(.*)$/s.exec(rest) ?? [];
  if (mnemonic === "" && labels.length === 0) return [];
  const operands = tail.trim() === "" ? [] : split(tail, ",", false).map((operand) => operand.trim());
  return [{ line, labels, mnemonic: mnemonic.toLowerCase(), operands }];
}

/** Splits outside quotes and parentheses; with `comments`, `#` and `//` end the text. */
function split(text: string, separator: string, comments: boolean): string[] {
  const parts: string[] = [];
  let start = 0;
  let quote = "";
  let depth = 0;
  let index = 0;
  for (; index < text.length; index++) {
    const character = text.charAt(index);
    if (quote !== "") {
      if (character === "\\") index++;
      else if (character === quote) quote = "";
    } else if (character === '"' || character === "'") quote = character;
    else if (character === "(") depth++;
    else if (character === ")") depth--;
    else if (comments && (character === "#" || text.startsWith("//", index))) break;
    else if (character === separator && depth <= 0) {
      parts.push(text.slice(start, index));
      start = index + 1;
    }
  }
  parts.push(text.slice(start, index));
  return parts;
}

/** Bytes of a quoted string: UTF-8, with C escapes (\n \t \r \0 \e \\ \" \xHH). */
export function stringBytes(text: string): Uint8Array {
  if (!/^".*"$/s.test(text)) throw new Error(`expected a string in double quotes, got ${text}`);
  const bytes: number[] = [];
  const encoder = new TextEncoder();
  const body = text.slice(1, -1);
  for (let index = 0; index < body.length; index++) {
    const character = String.fromCodePoint(body.codePointAt(index) ?? 0);
    if (character !== "\\") {
      bytes.push(...encoder.encode(character));
      index += character.length - 1;
      continue;
    }
    const escape = body.charAt(++index);
    const hex = escape === "x" ? /^[0-9a-fA-F]{1,2}/.exec(body.slice(index + 1))?.[0] : undefined;
    const code = hex === undefined ? ESCAPES[escape] : Number.parseInt(hex, 16);
    if (code === undefined) throw new Error(`string ${text}: unknown escape \\${escape}`);
    bytes.push(code);
    index += hex?.length ?? 0;
  }
  return Uint8Array.from(bytes);
}
