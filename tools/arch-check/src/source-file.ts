import { readFileSync } from "node:fs";
import ts from "typescript";

export interface Import {
  readonly specifier: string;
  readonly line: number;
}
export interface SourceFile {
  /** Relative to the repository, "/" between names. */
  readonly path: string;
  readonly imports: readonly Import[];
  /** Global names that are used as values or types: not members, not declared in this file. */
  readonly globals: ReadonlyMap<string, number>;
}

/** Reads what a file depends on from its syntax tree, so that comments and strings do not count. */
export function readSourceFile(root: string, path: string): SourceFile {
  return scanSource(path, readFileSync(`${root}/${path}`, "utf8"));
}

export function scanSource(path: string, text: string): SourceFile {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  const imports: Import[] = [];
  const names = new Map<string, number>();
  const declared = new Set<string>();
  const lineOf = (node: ts.Node) => source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;

  const visit = (node: ts.Node): void => {
    const specifier = specifierOf(node);
    if (specifier) imports.push({ specifier: specifier.text, line: lineOf(specifier) });
    if (ts.isIdentifier(node)) {
      if (isDeclaration(node)) declared.add(node.text);
      else if (!isMemberName(node) && !isDateArithmetic(node) && !names.has(node.text)) names.set(node.text, lineOf(node));
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  for (const name of declared) names.delete(name);
  return { path, imports, globals: names };
}

/** import … from "x", export … from "x", import("x"), import type T = import("x").T */
function specifierOf(node: ts.Node): ts.StringLiteral | undefined {
  let specifier: ts.Node | undefined;
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) specifier = node.moduleSpecifier;
  else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) specifier = node.arguments[0];
  else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) specifier = node.argument.literal;
  return specifier && ts.isStringLiteral(specifier) ? specifier : undefined;
}

function isDeclaration(node: ts.Identifier): boolean {
  const { parent } = node;
  return (
    ((ts.isVariableDeclaration(parent) ||
      ts.isParameter(parent) ||
      ts.isBindingElement(parent) ||
      ts.isFunctionDeclaration(parent) ||
      ts.isFunctionExpression(parent) ||
      ts.isClassDeclaration(parent) ||
      ts.isInterfaceDeclaration(parent) ||
      ts.isTypeAliasDeclaration(parent) ||
      ts.isTypeParameterDeclaration(parent) ||
      ts.isImportSpecifier(parent) ||
      ts.isImportClause(parent) ||
      ts.isNamespaceImport(parent)) &&
      parent.name === node)
  );
}

/** `new Date(ms)`, `Date.parse(text)` and `Date.UTC(…)` convert what they are given; they do not read the clock. */
function isDateArithmetic(node: ts.Identifier): boolean {
  const { parent } = node;
  if (node.text !== "Date") return false;
  if (ts.isNewExpression(parent)) return (parent.arguments?.length ?? 0) > 0;
  return ts.isPropertyAccessExpression(parent) && (parent.name.text === "parse" || parent.name.text === "UTC");
}

function isMemberName(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) return parent.name === node;
  if (ts.isQualifiedName(parent)) return parent.right === node;
  if (ts.isShorthandPropertyAssignment(parent)) return false;
  if (ts.isBindingElement(parent)) return parent.propertyName === node;
  return (
    (ts.isPropertyAssignment(parent) ||
      ts.isPropertyDeclaration(parent) ||
      ts.isPropertySignature(parent) ||
      ts.isMethodDeclaration(parent) ||
      ts.isMethodSignature(parent) ||
      ts.isGetAccessor(parent) ||
      ts.isSetAccessor(parent) ||
      ts.isNamedTupleMember(parent)) &&
    parent.name === (node as ts.Node)
  );
}
