export * from "./events.ts";
export * from "./service.ts";
