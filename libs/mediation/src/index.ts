export { joinDigests } from "./digest.ts";
export * from "./chain.ts";
export { RuleError } from "./expression.ts";
export * from "./rules.ts";
