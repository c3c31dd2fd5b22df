import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Lane, MediationChain, RuleError, RuleSet, type MediationPoint, type Rule } from "./index.ts";

const BLOCKS: MediationPoint = { service: "image-registry", plane: "blocks", method: "blocks", direction: "request" };
const EXITS: MediationPoint = { service: "device-bus", plane: "exits", method: "exits", direction: "request" };
const utf8 = (text: string) => new TextEncoder().encode(text);
const read = (sector: bigint) => ({ machine: "m", disk: "d", id: 1n, operation: { $case: "read", value: { sector, sectors: 8 } } });
const write = (sector: bigint, data: Uint8Array) => ({ machine: "m", disk: "d", id: 2n, operation: { $case: "write", value: { sector, data } } });

let rules: RuleSet;
let chain: MediationChain;
let reports: string[];
beforeEach(() => {
  reports = [];
  rules = new RuleSet((id, reason) => reports.push(`${id}: ${reason}`));
  chain = new MediationChain(rules);
});

/** Sends one message through the chain; what came out, in order. */
function pass(message: any, point = BLOCKS, machine = "m", lane?: Lane, out: any[] = []): any[] {
  chain.pass(point, chain.countersOf(point, machine), machine, message, {
    lane,
    deliver: (delivered) => out.push(delivered),
    deny: (reason, denied) => out.push({ denied: reason, message: denied }),
    drop: () => out.push("dropped"),
  });
  return out;
}
const counters = (point = BLOCKS, machine = "m") => chain.countersOf(point, machine);

describe("a rule set", () => {
  it("is inactive without rules, and again once the last is removed", () => {
    expect(rules.active).toBe(false);
    const { id } = rules.add({ action: "observe" });
    expect(rules.active).toBe(true);
    expect(rules.remove(id)).toBe(true);
    expect(rules.remove(id)).toBe(false);
    expect(rules.active).toBe(false);
  });

  it("delivers the sender's own object when nothing changes it", () => {
    rules.add({ action: "observe", expression: "message.read.sector == 0" });
    const message = read(0n);
    expect(pass(message)[0]).toBe(message);
    expect(rules.list()[0]).toMatchObject({ hits: 1n, errors: 0n });
  });

  it("chooses free ids, keeps given ones and refuses a second of the same", () => {
    rules.add({ id: "r1", action: "observe" });
    expect(rules.add({ action: "observe" }).id).toBe("r2");
    expect(() => rules.add({ id: "r1", action: "drop" })).toThrow(RuleError);
  });

  it.each<[string, Partial<Rule>, boolean]>([
    ["plane", { plane: "blocks" }, true],
    ["another plane", { plane: "exits" }, false],
    ["method", { method: "blocks" }, true],
    ["another method", { method: "createDisk" }, false],
    ["machine", { machine: "m" }, true],
    ["another machine", { machine: "n" }, false],
    ["direction", { direction: "request" }, true],
    ["another direction", { direction: "response" }, false],
    ["empty parts", { plane: "", method: "", machine: "", direction: "", expression: "" }, true],
    ["a true expression", { expression: 'plane == "blocks" && method == "blocks" && machine == "m" && direction == "request"' }, true],
    ["a false expression", { expression: "message.read.sector > 7" }, false],
  ])("matches by %s", (_name, match, hit) => {
    rules.add({ action: "deny", ...match });
    expect(pass(read(7n))[0].denied !== undefined).toBe(hit);
  });

  it("counts so that seen = executed + denied + dropped", () => {
    rules.add({ id: "no", action: "deny", expression: "message.read.sector == 0" });
    rules.add({ action: "drop", expression: "message.read.sector == 1" });
    rules.add({ action: "modify", assign: { "read.sector": "9" }, expression: "message.read.sector == 2" });
    rules.add({ action: "duplicate", expression: "message.read.sector == 3" });
    const out = [0n, 1n, 2n, 3n, 4n].flatMap((sector) => pass(read(sector)));
    expect(out.length).toBe(6);
    expect(out[0]).toMatchObject({ denied: "no", message: { id: 1n } });
    expect(counters()).toEqual({ seen: 5, executed: 3, denied: 1, dropped: 1, modified: 1, duplicated: 1 });
  });

  it("stops at the first deny: later rules do not see the message", () => {
    rules.add({ action: "deny" });
    rules.add({ id: "later", action: "observe" });
    pass(read(0n));
    expect(rules.list()[1]!.hits).toBe(0n);
  });
});

describe("modify", () => {
  it("writes through a oneof into a copy and leaves the sender's message alone", () => {
    rules.add({ action: "modify", assign: { "write.data": "setByte(message.write.data, 1, 88)" } });
    const message = write(5n, utf8("abc"));
    const [delivered] = pass(message);
    expect(delivered.operation).toEqual({ $case: "write", value: { sector: 5n, data: utf8("aXc") } });
    expect(message).toEqual(write(5n, utf8("abc")));
  });

  it("lets a later rule see what an earlier one wrote", () => {
    rules.add({ action: "modify", assign: { "read.sector": "message.read.sector + 1" } });
    rules.add({ action: "modify", assign: { "message.read.sector": "message.read.sector * 10" } });
    expect(pass(read(1n))[0].operation.value.sector).toBe(20n);
  });

  it("turns one word of bytes into another, and keeps 32-bit fields numbers", () => {
    rules.add({ action: "modify", assign: { "write.data": 'replace(message.write.data, "Linux", "Polyvisor")' } });
    rules.add({ action: "modify", assign: { "read.sectors": "1" } });
    expect(pass(write(0n, utf8("a Linux b Linux")))[0].operation.value.data).toEqual(utf8("a Polyvisor b Polyvisor"));
    expect(pass(read(0n))[0].operation.value.sectors).toBe(1);
  });

  it("reaches elements of lists", () => {
    rules.add({ action: "modify", assign: { "frames[1].data": 'b"zz"' }, expression: "size(message.frames) > 1" });
    const [delivered] = pass({ machine: "m", frames: [{ data: utf8("a") }, { data: utf8("b") }] });
    expect(delivered.frames.map((frame: any) => new TextDecoder().decode(frame.data))).toEqual(["a", "zz"]);
  });

  it.each([
    ["a field that is absent", { "read.nothing": "1" }, "no field"],
    ["another type", { "read.sector": '"zero"' }, "type bigint"],
    ["a value too large", { "read.sectors": "4294967296" }, "type number"],
    ["a negative 64-bit value", { "read.sector": "-1" }, "type bigint"],
    ["an index out of range", { "read.sector": 'byteAt(b"a", 1)' }, "outside 1 bytes"],
  ])("skips the rule, counts it and reports it once for %s", (_name, assign, reason) => {
    rules.add({ id: "bad", action: "modify", assign: assign as unknown as Record<string, string> });
    const message = read(1n);
    expect(pass(message)[0]).toBe(message);
    expect(pass(message)[0]).toBe(message);
    expect(rules.list()[0]).toMatchObject({ hits: 0n, errors: 2n });
    expect(reports).toEqual([expect.stringContaining(reason)]);
  });
});

describe("expressions", () => {
  it.each<[string, any, boolean]>([
    ["message.read.sector == 0 && message.read.sectors == 8", read(0n), true],
    ["message.operation == 'read'", read(0n), true],
    ["has(message.write)", read(0n), false],
    ["text(message.write.data).contains('ell')", write(0n, utf8("hello")), true],
    ["hex(message.write.data) == '0aff'", write(0n, new Uint8Array([10, 255])), true],
    ["byteAt(message.write.data, 1) == 255", write(0n, new Uint8Array([10, 255])), true],
    ['message.write.data == b"\\x0a"', write(0n, new Uint8Array([10])), true],
    ["message.value >= 18446744073709551615", { value: 2n ** 64n - 1n }, true],
    ["message.counters['a'] == 3", { counters: new Map([["a", 3n]]) }, true],
  ])("%s", (expression, message, expected) => {
    rules.add({ action: "drop", expression });
    expect(pass(message)[0] === "dropped").toBe(expected);
  });

  it("is false, and no failure, over a field of another oneof case", () => {
    rules.add({ action: "deny", expression: "message.write.sector == 0" });
    pass(read(0n));
    expect(rules.list()[0]).toMatchObject({ hits: 0n, errors: 0n });
  });

  it.each<[Partial<Rule>, string]>([
    [{ expression: "message.read.sector ==" }, "offset 22"],
    [{ expression: "sector == 1" }, "Unknown variable"],
    [{ expression: "1 + 1" }, "expected bool"],
    [{ expression: `"${"x".repeat(5000)}" == ""` }, "at most 4096"],
    [{ plane: "bocks" }, "planes are"],
    [{ direction: "up" }, "directions are"],
    [{ action: "explode" as any }, "actions are"],
    [{ action: "modify" }, "at least one assignment"],
    [{ action: "modify", assign: { "a b": "1" } }, "not a field path"],
    [{ action: "modify", assign: { a: "1 +" } }, "assign a at offset"],
    [{ action: "delay", delayMs: 0 }, "expected 1 to 60000"],
  ])("refuses %j when it is added", (rule, reason) => {
    expect(() => rules.add({ action: "deny", ...rule })).toThrow(reason);
    expect(rules.active).toBe(false);
  });

  it("refuses the 257th rule", () => {
    for (let i = 0; i < 256; i++) rules.add({ action: "observe" });
    expect(() => rules.add({ action: "observe" })).toThrow("256 rules");
  });
});

describe("corrupt", () => {
  it("flips one bit of the bytes, the same ones for the same seed", () => {
    const run = (seed: bigint) => {
      rules = new RuleSet();
      chain = new MediationChain(rules);
      rules.add({ action: "corrupt", seed });
      return [1, 2, 3].map(() => pass(write(0n, new Uint8Array(64)))[0].operation.value.data as Uint8Array);
    };
    const first = run(7n);
    for (const data of first) expect(data.reduce((bits, byte) => bits + byte.toString(2).replaceAll("0", "").length, 0)).toBe(1);
    expect(run(7n)).toEqual(first);
    expect(run(8n)).not.toEqual(first);
    expect(counters().modified).toBe(3);
  });

  it("flips a number where there are no bytes, never the envelope", () => {
    rules.add({ action: "corrupt", seed: 1n });
    const message = { machine: "m", hart: 0, id: 5n, status: 1, value: 0n };
    const [delivered] = pass(message, EXITS);
    expect(delivered).not.toEqual(message);
    expect(delivered).toMatchObject({ machine: "m", hart: 0, id: 5n });
  });
});

describe("delay", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("holds back what comes behind it in the same lane, and nothing in others", () => {
    rules.add({ action: "delay", delayMs: 10, expression: "message.read.sector == 0" });
    const lane = new Lane();
    const out: any[] = [];
    pass(read(0n), BLOCKS, "m", lane, out);
    pass(read(1n), BLOCKS, "m", lane, out);
    const other = pass(read(2n), BLOCKS, "m", new Lane());
    expect([out.length, other.length]).toEqual([0, 1]);
    vi.advanceTimersByTime(10);
    expect(out.map((message) => message.operation.value.sector)).toEqual([0n, 1n]);
  });

  it("keeps order when several are delayed, also after the rule is gone, and then is inactive", () => {
    const { id } = rules.add({ action: "delay", delayMs: 10 });
    const lane = new Lane();
    const out: any[] = [];
    for (const sector of [0n, 1n, 2n]) pass(read(sector), BLOCKS, "m", lane, out);
    rules.remove(id);
    pass(read(3n), BLOCKS, "m", lane, out);
    expect(rules.active).toBe(true);
    vi.advanceTimersByTime(100);
    expect(out.map((message) => message.operation.value.sector)).toEqual([0n, 1n, 2n, 3n]);
    expect(rules.active).toBe(false);
    expect(counters()).toMatchObject({ seen: 4, executed: 4 });
  });

  it("keeps what arrives during the release behind what waited", () => {
    const { id } = rules.add({ action: "delay", delayMs: 10 });
    const lane = new Lane();
    const out: bigint[] = [];
    const send = (sector: bigint) =>
      chain.pass(BLOCKS, counters(), "m", read(sector), {
        lane,
        deliver: (message: any) => {
          out.push(message.operation.value.sector);
          if (out.length === 1) send(9n);
        },
        deny() {},
        drop() {},
      });
    send(0n);
    rules.remove(id);
    send(1n);
    vi.advanceTimersByTime(100);
    expect(out).toEqual([0n, 1n, 9n]);
  });
});

describe("plugins and observers", () => {
  it("a plugin sees matching messages and decides", () => {
    rules.plugin({ plane: "blocks" }, ({ message }) => (message.operation.$case === "write" ? { action: "deny", reason: "read-only today" } : undefined));
    expect(pass(write(0n, utf8("x")))[0].denied).toBe("r1: read-only today");
    expect(pass(read(0n))[0]).toMatchObject({ id: 1n });
    expect(rules.list()[0]).toMatchObject({ hits: 1n });
  });

  it("a plugin that throws is skipped, counted and reported", () => {
    rules.plugin({}, () => {
      throw new Error("bug");
    });
    const message = read(0n);
    expect(pass(message)[0]).toBe(message);
    expect(reports).toEqual(["r1: bug"]);
  });

  it("an observer sees the outcome of every matching message, and does not make it wait for its failure", () => {
    const seen: string[] = [];
    const stop = rules.observe({ expression: "message.machine == 'm'" }, ({ verdict }) => {
      seen.push(verdict);
      throw new Error("observer bug");
    });
    pass(read(0n));
    rules.add({ action: "drop", expression: "message.read.sector == 1" });
    rules.add({ action: "deny", expression: "message.read.sector == 2" });
    rules.add({ action: "modify", assign: { "read.sector": "0" }, expression: "message.read.sector == 3" });
    for (const sector of [1n, 2n, 3n]) pass(read(sector));
    expect(seen).toEqual(["executed", "dropped", "denied", "modified"]);
    for (const { rule } of rules.list()) rules.remove(rule.id);
    stop();
    expect(rules.active).toBe(false);
  });
});

describe("the chain", () => {
  it("keeps its counters bounded when machine names are made up", () => {
    for (let i = 0; i < 20_000; i++) pass(read(0n), BLOCKS, `machine-${i}`);
    expect(chain.read().length).toBeLessThan(8200);
    expect(chain.read().reduce((sum, entry) => sum + entry.counters.seen, 0)).toBe(20_000);
  });

  it("forgets a destroyed machine's counters", () => {
    pass(read(0n));
    chain.forget("m");
    expect(chain.read("m")).toEqual([]);
  });
});
