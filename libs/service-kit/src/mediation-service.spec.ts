import { channelPair, mediated, type Channel } from "@polyvisor/contracts";
import { CPU } from "@polyvisor/contracts/cpu";
import { DEVICE, ExitStatus, type ExitRequest } from "@polyvisor/contracts/device";
import { ORCHESTRATOR } from "@polyvisor/contracts/orchestrator";
import { Action, MEDIATION, Rule, type TraceEntry } from "@polyvisor/contracts/mediation";
import { MediationChain, RuleSet } from "@polyvisor/mediation";
import { beforeEach, describe, expect, it } from "vitest";
import { createMediationService, traceJson } from "./mediation-service.ts";

let rules: RuleSet;
let chain: MediationChain;
let service: ReturnType<typeof createMediationService>;
const port = () => mediated(MEDIATION, service);
beforeEach(() => {
  rules = new RuleSet();
  chain = new MediationChain(rules);
  service = createMediationService(chain, rules, "device-bus", { now: () => 1000 });
});
const rule = (fields: Parameters<typeof Rule.fromPartial>[0]) => ({ rule: Rule.fromPartial(fields) });
const read = (address: bigint): ExitRequest => ({ machine: "m", hart: 0, id: 7n, exit: { $case: "mmioRead", value: { address, size: 4 } } });
/** A device-bus whose devices read as 0x2a. */
const device = () =>
  mediated(
    DEVICE,
    {
      exits: (channel) =>
        channel.onMessage((exit) => channel.send({ machine: exit.machine, hart: exit.hart, id: exit.id, status: ExitStatus.OK, value: 0x2an, data: new Uint8Array(0) })),
    },
    chain,
  );

describe("the mediation service", () => {
  it("installs, lists with hits, and removes rules of every action", async () => {
    for (const action of [Action.OBSERVE, Action.DENY, Action.DROP, Action.DUPLICATE, Action.CORRUPT]) await port().addRule(rule({ action }));
    await port().addRule(rule({ id: "slow", action: Action.DELAY, delayMs: 5, plane: "dma" }));
    await port().addRule(rule({ action: Action.MODIFY, assign: new Map([["value", "1"]]) as never, machine: "x" }));
    const { rules: listed } = await port().listRules({});
    expect(listed.map(({ id, action, service: from }) => [id, action, from])).toEqual([
      ["r1", Action.OBSERVE, "device-bus"],
      ["r2", Action.DENY, "device-bus"],
      ["r3", Action.DROP, "device-bus"],
      ["r4", Action.DUPLICATE, "device-bus"],
      ["r5", Action.CORRUPT, "device-bus"],
      ["slow", Action.DELAY, "device-bus"],
      ["r6", Action.MODIFY, "device-bus"],
    ]);
    expect(listed[6]!.assign.get("value")).toBe("1");
    expect(await port().removeRule({ id: "slow" })).toEqual({ removed: true });
    expect(await port().removeRule({ id: "slow" })).toEqual({ removed: false });
  });

  it("makes a digest of what passes, and hands the messages on", async () => {
    const digest = async () => (await port().listRules({})).rules[0]!;
    await port().addRule(rule({ action: Action.DIGEST, plane: "exits", direction: "request" }));
    expect(await digest()).toMatchObject({ hits: 0n, digest: "0000000000000000" });
    const exits = device().exits();
    exits.send(read(0x1000n));
    const first = (await digest()).digest;
    exits.send(read(0x1000n));
    expect(await digest()).toMatchObject({ hits: 2n, digest: expect.not.stringContaining(first) });
    await expect(port().addRule(rule({ action: Action.DIGEST, expression: "frame.tcp.dport == 1" }))).rejects.toMatchObject({ condition: "invalid" });
  });

  it.each([
    [{ action: Action.UNSPECIFIED }, "action 0 is unknown"],
    [{ action: Action.DENY, expression: "message.x ==" }, "offset 12"],
    [{ action: Action.MODIFY }, "at least one assignment"],
  ])("refuses %j as invalid", async (fields, reason) => {
    await expect(port().addRule(rule(fields))).rejects.toMatchObject({ condition: "invalid", message: expect.stringContaining(reason) });
  });

  it("denies an exit so that the guest sees an access fault, with its id, until the rule is removed", async () => {
    const { rule: installed } = await port().addRule(rule({ action: Action.DENY, plane: "exits", expression: "message.mmioRead.address == 0x1000" }));
    const channel = device().exits();
    const answers: unknown[] = [];
    channel.onMessage((answer) => answers.push([answer.id, answer.status, answer.value]));
    channel.send(read(0x1000n));
    channel.send(read(0x2000n));
    await port().removeRule({ id: installed!.id });
    channel.send(read(0x1000n));
    expect(answers).toEqual([
      [7n, ExitStatus.ACCESS_FAULT, 0n],
      [7n, ExitStatus.OK, 0x2an],
      [7n, ExitStatus.OK, 0x2an],
    ]);
    const { planes } = await port().readCounters({ machine: "m" });
    expect(planes).toEqual([
      { plane: "exits", method: "exits", service: "device-bus", seen: 5n, executed: 4n, denied: 1n, dropped: 0n, modified: 0n, duplicated: 0n },
    ]);
  });

  it("denies the right message when one before it is delayed", async () => {
    await port().addRule(rule({ action: Action.DELAY, delayMs: 10, direction: "request", expression: "message.mmioRead.address == 1" }));
    await port().addRule(rule({ action: Action.DENY, direction: "request" }));
    const channel = device().exits();
    const answers: bigint[] = [];
    const both = new Promise<void>((resolve) => channel.onMessage((answer) => answers.push(answer.id) === 2 && resolve()));
    channel.send({ ...read(1n), id: 1n });
    channel.send({ ...read(2n), id: 2n });
    await both;
    expect(answers).toEqual([1n, 2n]);
  });

  it("a delayed message still arrives when its sender closes behind it", async () => {
    await port().addRule(rule({ action: Action.DELAY, delayMs: 10, direction: "request" }));
    const seen: bigint[] = [];
    const closed = Promise.withResolvers<void>();
    const channel = mediated(
      DEVICE,
      {
        exits: (core) => {
          core.onMessage((exit) => seen.push(exit.id));
          core.onClose(() => closed.resolve());
        },
      },
      chain,
    ).exits();
    channel.send(read(1n));
    channel.close();
    await closed.promise;
    expect(seen).toEqual([7n]);
  });

  it("denies and drops unary calls with conditions", async () => {
    const cpu = mediated(CPU, { runHarts: () => ({}) }, chain);
    await port().addRule(rule({ id: "no", action: Action.DENY, method: "runHarts" }));
    await expect(cpu.runHarts({ machine: "m" })).rejects.toMatchObject({ condition: "denied", message: expect.stringContaining("rule no") });
    await port().removeRule({ id: "no" });
    await port().addRule(rule({ action: Action.DROP, method: "runHarts" }));
    await expect(cpu.runHarts({ machine: "m" })).rejects.toMatchObject({ condition: "timeout" });
  });
});

describe("trace", () => {
  it("does not show what a trace shows: one that sees its own way to the reader would never be quiet", async () => {
    const seen: string[] = [];
    port().trace({ machine: "", plane: "", expression: "" }).onMessage(({ method }) => seen.push(method));
    // The orchestrator's trace, which hands on what the services' show.
    const outer = mediated(ORCHESTRATOR, { trace: (request, out) => void service.trace!(request, out) }, chain).trace({ machine: "", plane: "", expression: "" });
    const entries: TraceEntry[] = [];
    outer.onMessage((entry) => entries.push(entry));
    device().exits().send(read(1n));
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(entries.map(({ method, direction }) => `${method} ${direction}`)).toEqual(["exits request", "exits response"]);
    expect(seen).toEqual(["trace", "exits", "exits"]); // the request for the outer trace is a message like others
  });

  const traced = async (send: (channel: Channel<ExitRequest, any>) => void, count: number) => {
    const entries: TraceEntry[] = [];
    const trace = port().trace({ machine: "m", plane: "", expression: "" });
    const enough = new Promise<void>((resolve) => trace.onMessage((entry) => entries.push(entry) === count && resolve()));
    send(device().exits());
    await enough;
    trace.close();
    return entries;
  };

  it("shows each message, decoded, with its verdict, and stops with its reader", async () => {
    rules.add({ action: "deny", expression: "message.mmioRead.address == 1" });
    const entries = await traced((channel) => {
      channel.send(read(1n));
      channel.send(read(2n));
    }, 3);
    expect(entries.map(({ direction, verdict }) => `${direction} ${verdict}`)).toEqual(["request denied", "request executed", "response executed"]);
    expect(entries[1]).toMatchObject({ timeMs: 1000, service: "device-bus", plane: "exits", method: "exits", machine: "m", lost: 0n });
    expect(JSON.parse(entries[1]!.messageJson)).toEqual({ machine: "m", hart: 0, id: "7", mmioRead: { address: "2", size: 4 } });
    rules.remove("r1");
    expect(rules.active).toBe(false);
  });

  it("loses, and counts, what a slow reader does not take, and goes on when it does", async () => {
    const [out, reader] = channelPair<TraceEntry, never>();
    (service.trace as Function)({ machine: "", plane: "", expression: "" }, out);
    const entries: TraceEntry[] = [];
    reader.onMessage((entry) => void entries.push(entry));
    reader.slow(true);
    const channel = device().exits();
    for (let i = 0; i < 5000; i++) channel.send(read(0n));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(entries.length).toBe(1);
    reader.slow(false);
    await new Promise((resolve) => setTimeout(resolve, 50));
    channel.send(read(0n));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const lost = entries.reduce((sum, entry) => sum + Number(entry.lost), 0);
    expect(lost).toBeGreaterThan(0);
    expect(entries.length + lost).toBe(10_002);
    reader.close();
    expect(rules.active).toBe(false);
  });

  it("writes bytes as base64 of at most 256 of them, maps as objects and 64-bit integers as strings", () => {
    expect(JSON.parse(traceJson({ data: new Uint8Array([1, 2]), counters: new Map([["a", 5n]]), list: [{ $case: 1 }] }))).toMatchObject({ data: "AQI=", counters: { a: "5" } });
    expect(traceJson({ data: new Uint8Array(1 << 20) }).length).toBeLessThan(400);
  });
});
