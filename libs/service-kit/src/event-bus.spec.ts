import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CloudEvent, EventBus } from "./events.ts";
import { createLocalBus, connectNatsBus, decodeCloudEvent, encodeCloudEvent, cloudEventOf, FACTS_STREAM, findNatsServer, startNatsServer, subjectMatches, type NatsServer } from "./index.ts";

const cache = join(tmpdir(), "polyvisor-test-cache");
const found = findNatsServer(cache);
const directory = mkdtempSync(join(tmpdir(), "pv-nats-"));
let server: NatsServer | undefined;
beforeAll(async () => {
  if (found.path !== undefined) server = await startNatsServer(found.path, directory);
}, 20_000);
afterAll(async () => {
  await server?.close();
  rmSync(directory, { recursive: true, force: true });
});

const started = (machine: string, data = {}) => ({ machine, service: "orchestrator", fact: "machine-started", data });
/** Facts cross a server: waits until `count` have come, then a little longer for one too many. */
async function collect(seen: CloudEvent[], count: number): Promise<CloudEvent[]> {
  for (let i = 0; i < 200 && seen.length < count; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  await new Promise((resolve) => setTimeout(resolve, 30));
  return seen;
}

const BUSES: [string, boolean, () => Promise<[EventBus, EventBus]>][] = [
  [
    "in-process bus",
    true,
    async () => {
      const bus = createLocalBus();
      return [bus, bus];
    },
  ],
  [
    `NATS bus${found.path === undefined ? ` (skipped: ${found.reason})` : ""}`,
    found.path !== undefined,
    async () => [await connectNatsBus(server!.url, { name: "one" }), await connectNatsBus(server!.url, { name: "two" })],
  ],
];

for (const [name, available, open] of BUSES) {
  describe.skipIf(!available)(`the ${name}`, () => {
    it("delivers a fact with its CloudEvents attributes and JSON data", async () => {
      const [publisher, subscriber] = await open();
      const seen: CloudEvent[] = [];
      subscriber.subscribe("pv.v1.web.>", (event) => seen.push(event));
      await new Promise((resolve) => setTimeout(resolve, 50));
      publisher.publish(started("web", { bytes: 2n ** 40n, list: [1] }));
      await collect(seen, 1);
      expect(seen).toEqual([
        {
          specversion: "1.0",
          id: expect.stringMatching(/^[0-9a-f-]{36}$/),
          source: "/polyvisor/orchestrator",
          type: "polyvisor.orchestrator.machine-started.v1",
          subject: "web",
          time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
          datacontenttype: "application/json",
          data: { bytes: "1099511627776", list: [1] },
          machine: "web",
          service: "orchestrator",
          fact: "machine-started",
        },
      ]);
      await publisher.close();
      await subscriber.close();
    });

    it("delivers in order to every subscriber whose pattern matches, and to no other", async () => {
      const [publisher, subscriber] = await open();
      const seen: Record<string, CloudEvent[]> = {};
      for (const pattern of ["pv.v1.*.orchestrator.machine-started", "pv.v1.a.>", "pv.v1.b.>", "pv.v1.*"]) {
        seen[pattern] = [];
        subscriber.subscribe(pattern, (event) => seen[pattern]!.push(event));
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
      for (let i = 0; i < 20; i++) publisher.publish(started("a", { i }));
      await collect(seen["pv.v1.a.>"]!, 20);
      expect(seen["pv.v1.a.>"]!.map((event) => (event.data as { i: number }).i)).toEqual(Array.from({ length: 20 }, (_, i) => i));
      expect(Object.values(seen).map((events) => events.length)).toEqual([20, 20, 0, 0]);
      await publisher.close();
      await subscriber.close();
    });

    it("delivers nothing after unsubscribing, survives a listener that throws, and publishing never throws", async () => {
      const [publisher, subscriber] = await open();
      const seen: CloudEvent[] = [];
      subscriber.subscribe("pv.v1.>", () => {
        throw new Error("listener bug");
      });
      const stop = subscriber.subscribe("pv.v1.>", (event) => seen.push(event));
      await new Promise((resolve) => setTimeout(resolve, 50));
      publisher.publish(started("a"));
      await collect(seen, 1);
      stop();
      publisher.publish(started("a.b *>"));
      expect((await collect(seen, 2)).length).toBe(1);
      await publisher.close();
      await subscriber.close();
      expect(() => publisher.publish(started("late"))).not.toThrow();
    });
  });
}

describe.skipIf(found.path === undefined)("the NATS server", () => {
  it("keeps facts in a JetStream stream", async () => {
    const bus = await connectNatsBus(server!.url, { name: "keeper" });
    bus.publish(started("kept"));
    await bus.close();
    const connection = await connect({ servers: server!.url });
    const manager = await jetstreamManager(connection);
    const message = await manager.streams.getMessage(FACTS_STREAM, { last_by_subj: "pv.v1.kept.orchestrator.machine-started" });
    expect(decodeCloudEvent(new TextDecoder().decode(message!.data))).toMatchObject({ machine: "kept", fact: "machine-started" });
    await connection.close();
  });

  it("is reported when it is not there", async () => {
    await expect(connectNatsBus("nats://127.0.0.1:1", { name: "x", connectTimeoutMs: 500 })).rejects.toMatchObject({
      condition: "unavailable",
      message: expect.stringContaining("NATS_URL"),
    });
  });

  it("cannot start from something that is no server", async () => {
    await expect(startNatsServer("/bin/false", join(directory, "false"))).rejects.toMatchObject({ condition: "unavailable" });
  });

  it("is taken from NATS_SERVER, which must be executable", () => {
    expect(findNatsServer(cache, { NATS_SERVER: found.path! })).toEqual({ path: found.path });
    expect(findNatsServer(cache, { NATS_SERVER: `${import.meta.dirname}/index.ts` })).toMatchObject({ reason: expect.stringContaining("cannot be executed") });
  });
});

describe("events", () => {
  it.each([
    ["pv.v1.>", "pv.v1.a.b.c", true],
    ["pv.v1.*.b.c", "pv.v1.a.b.c", true],
    ["pv.v1.*", "pv.v1.a.b", false],
    ["pv.v1.a.>", "pv.v1.a", false],
    ["pv.v1", "pv.v1", true],
    ["pv.v1.a", "pv.v1", false],
  ])("pattern %s against subject %s → %s", (pattern, subject, matches) => {
    expect(subjectMatches(pattern, subject)).toBe(matches);
  });

  it("decoding gives back what was encoded, and refuses what is no Polyvisor event", () => {
    const event = cloudEventOf(started("m", { a: 1 }));
    expect(decodeCloudEvent(encodeCloudEvent(event))).toEqual(event);
    expect(() => decodeCloudEvent('{"specversion":"1.0","type":"com.example.x"}')).toThrow("not a Polyvisor event");
  });
});
