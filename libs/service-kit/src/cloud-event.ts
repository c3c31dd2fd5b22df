import { randomUUID } from "node:crypto";
import { ContractError } from "@polyvisor/contracts";
import type { CloudEvent, Fact } from "./events.ts";

/** Tokens of a subject: letters, digits, "-" and "_" (NATS, "Subject names"); what else a name holds becomes "_". */
const token = (name: string) => name.replace(/[^A-Za-z0-9_-]/g, "_") || "-";

export const subjectOf = (fact: Fact) => `pv.v1.${token(fact.machine)}.${token(fact.service)}.${token(fact.fact)}`;

export function cloudEventOf(fact: Fact): CloudEvent {
  return {
    ...fact,
    specversion: "1.0",
    id: randomUUID(),
    source: `/polyvisor/${fact.service}`,
    type: `polyvisor.${fact.service}.${fact.fact}.v1`,
    subject: fact.machine,
    time: new Date().toISOString(),
    datacontenttype: "application/json",
  };
}

/** CloudEvents JSON format 1.0.2; `machine`, `service` and `fact` are not attributes, they are in source, type and subject. */
export function encodeCloudEvent(event: CloudEvent): string {
  const { machine: _machine, service: _service, fact: _fact, ...attributes } = event;
  return JSON.stringify(attributes, (_key, value) => (typeof value === "bigint" ? value.toString() : value));
}

export function decodeCloudEvent(json: string): CloudEvent {
  const event = JSON.parse(json) as CloudEvent;
  const kind = /^polyvisor\.([^.]+)\.([^.]+)\.v1$/.exec(String(event.type));
  if (event.specversion !== "1.0" || !kind) {
    throw new ContractError("invalid", `not a Polyvisor event: specversion ${event.specversion}, type ${event.type}`);
  }
  return { ...event, machine: event.subject ?? "-", service: kind[1]!, fact: kind[2]! };
}

/** Matches as NATS does: `*` is one token, a last `>` is one or more. */
export function subjectMatches(pattern: string, subject: string): boolean {
  const wanted = pattern.split(".");
  const got = subject.split(".");
  for (let i = 0; i < wanted.length; i++) {
    if (wanted[i] === ">") return i === wanted.length - 1 && got.length > i;
    if (i >= got.length || (wanted[i] !== "*" && wanted[i] !== got[i])) return false;
  }
  return wanted.length === got.length;
}
