export * from "./ir.ts";
