import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MediationChain, NO_MEDIATION } from "@polyvisor/mediation";
import { afterEach, describe, expect, it } from "vitest";
import type { Channel } from "./channel.ts";
import { messages } from "./channel.ts";
import { CPU, type CpuPort, type HartEvent } from "./cpu.ts";
import { DEVICE, ExitRequest, ExitStatus, type DevicePort } from "./device.ts";
import { ContractError, type Condition } from "./errors.ts";
import { bindGrpc, connectGrpc, createGrpcServer, serveGrpc } from "./grpc.ts";
import { mediated } from "./local.ts";
import type { Implementation } from "./port.ts";
import { currentTraceId, inTrace } from "./trace-context.ts";

const closers: (() => void)[] = [];
afterEach(() => closers.splice(0).forEach((close) => close()));

/** Serves the cores and answers ports to them, through one adapter. */
type Connect = (cpu: Implementation<typeof CPU.definition>, device?: Implementation<typeof DEVICE.definition>) => Promise<{ cpu: CpuPort; device: DevicePort }>;

const local: Connect = async (cpu, device = {}) => ({ cpu: mediated(CPU, cpu), device: mediated(DEVICE, device) });

function grpc(addressIn: (directory: string) => string): Connect {
  return async (cpu, device = {}) => {
    const directory = mkdtempSync(join(tmpdir(), "pv-contracts-"));
    const server = createGrpcServer();
    serveGrpc(server, CPU, mediated(CPU, cpu));
    serveGrpc(server, DEVICE, mediated(DEVICE, device));
    const address = await bindGrpc(server, addressIn(directory));
    const cpuPeer = connectGrpc(CPU, address);
    const devicePeer = connectGrpc(DEVICE, address);
    closers.push(() => {
      cpuPeer.close();
      devicePeer.close();
      server.forceShutdown();
      rmSync(directory, { recursive: true });
    });
    await cpuPeer.ready();
    return { cpu: cpuPeer.port, device: devicePeer.port };
  };
}

const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("call succeeded"), (error: unknown) => error as ContractError);
const ended = (channel: Pick<Channel<any, any>, "onClose">) => new Promise<ContractError | undefined>((resolve) => channel.onClose(resolve));
const write = (value: bigint) => ExitRequest.fromPartial({ machine: "m", hart: 0, exit: { $case: "mmioWrite", value: { address: 1n, size: 8, value } } });
const created = { machine: "m", state: "created", reason: "" };

describe.each([
  ["local", local],
  ["gRPC over a Unix socket", grpc((directory) => `unix:${directory}/s.sock`)],
  ["gRPC over TCP", grpc(() => "127.0.0.1:0")],
])("the %s adapter", (_name, connect) => {
  it("answers a unary call with the core's answer, 64-bit values and maps intact", async () => {
    const port = await connect({
      readHart: (request) => ({
        state: { hart: request.hart, pc: 0xffff_ffff_8000_0000n, x: [0n, 1n], f: [], csr: new Map([[0x300, 5n]]), virtual: false, privilege: 1, status: "paused", instructions: 9n },
      }),
    });
    expect(await port.cpu.readHart({ machine: "m", hart: 3 })).toMatchObject({ state: { hart: 3, pc: 0xffff_ffff_8000_0000n, csr: new Map([[0x300, 5n]]) } });
  });

  it.each(["invalid", "not-found", "precondition", "conflict", "corrupt", "exhausted", "out-of-range", "unavailable", "internal"] as Condition[])(
    "carries the condition %s and its message",
    async (condition) => {
      const port = await connect({
        pauseHarts: () => {
          throw new ContractError(condition, "pauseHarts: got é, expected x");
        },
      });
      expect(await failure(port.cpu.pauseHarts({ machine: "m" }))).toMatchObject({ condition, message: "pauseHarts: got é, expected x" });
    },
  );

  it("delivers bytes whose slice is a copy, to the core and back", async () => {
    const received: Uint8Array[] = [];
    const port = await connect({
      restoreHarts: ({ state }) => (received.push(state), {}),
      saveHarts: () => ({ state: Uint8Array.of(1, 2, 3) }),
    });
    await port.cpu.restoreHarts({ machine: "m", state: Uint8Array.of(1, 2, 3) });
    received.push((await port.cpu.saveHarts({ machine: "m" })).state);
    for (const bytes of received) {
      bytes.slice().fill(0);
      expect([...bytes]).toEqual([1, 2, 3]);
    }
    expect(received).toHaveLength(2);
  });

  it("answers unimplemented for a method that the core leaves out, unary and stream", async () => {
    const port = await connect({});
    expect(await failure(port.cpu.saveHarts({ machine: "m" }))).toMatchObject({ condition: "unimplemented" });
    expect(await ended(port.cpu.watchHarts({ machine: "m" }))).toMatchObject({ condition: "unimplemented" });
  });

  it("fails a call whose core is slower than the timeout with timeout", async () => {
    const port = await connect({ runHarts: () => new Promise(() => {}) });
    expect(await failure(port.cpu.runHarts({ machine: "m" }, { timeoutMs: 50 }))).toMatchObject({ condition: "timeout" });
  });

  it("fails a call whose signal is aborted with cancelled", async () => {
    const port = await connect({ runHarts: () => new Promise(() => {}) });
    const abort = new AbortController();
    const call = failure(port.cpu.runHarts({ machine: "m" }, { signal: abort.signal }));
    setTimeout(() => abort.abort(), 20);
    expect(await call).toMatchObject({ condition: "cancelled" });
  });

  it("delivers a server stream in order, then its end", async () => {
    const port = await connect({
      watchHarts: (_request, out) => {
        for (let i = 0; i < 100; i++) out.send({ ...created, reason: String(i) });
        out.close();
      },
    });
    const seen: string[] = [];
    for await (const event of messages(port.cpu.watchHarts({ machine: "m" }))) seen.push(event.reason);
    expect(seen).toEqual(Array.from({ length: 100 }, (_, i) => String(i)));
  });

  it("keeps what a stream brought before anybody listened, though the stream has ended since", async () => {
    const port = await connect({
      watchHarts: (_request, out) => {
        for (let i = 0; i < 3; i++) out.send({ ...created, reason: String(i) });
        out.close();
      },
    });
    const channel = port.cpu.watchHarts({ machine: "m" });
    expect(await ended(channel)).toBeUndefined();
    const found: string[] = [];
    for await (const { reason } of messages(channel)) found.push(reason);
    expect(found).toEqual(["0", "1", "2"]);
  });

  it("delivers what was sent before a stream fails, then the error", async () => {
    const port = await connect({
      watchHarts: (_request, out) => {
        out.send(created);
        out.close(new ContractError("corrupt", "hart state damaged"));
      },
    });
    const channel = port.cpu.watchHarts({ machine: "m" });
    const seen: HartEvent[] = [];
    channel.onMessage((message) => seen.push(message));
    expect(await ended(channel)).toMatchObject({ condition: "corrupt", message: "hart state damaged" });
    expect(seen).toEqual([created]);
  });

  it("tells the core of a server stream when its reader goes away", async () => {
    const gone = Promise.withResolvers<void>();
    const port = await connect({
      watchHarts: (_request, out) => {
        out.send(created);
        out.onClose(() => gone.resolve());
      },
    });
    const channel = port.cpu.watchHarts({ machine: "m" });
    await new Promise<void>((resolve) => channel.onMessage(() => resolve()));
    channel.close();
    await gone.promise;
    expect(channel.closed).toBe(true);
  });

  it("echoes 500 messages over a bidi stream in order", async () => {
    const port = await connect({}, {
      exits: (channel) => {
        channel.onMessage((exit) =>
          channel.send({ machine: exit.machine, hart: exit.hart, id: exit.id, status: ExitStatus.OK, value: exit.exit?.$case === "mmioWrite" ? exit.exit.value.value : 0n, data: new Uint8Array(0) }),
        );
      },
    });
    const channel = port.device.exits();
    const seen: bigint[] = [];
    const all = new Promise<void>((resolve) => channel.onMessage((answer) => seen.push(answer.value) === 500 && resolve()));
    for (let i = 0n; i < 500n; i++) channel.send(write(i));
    await all;
    expect(seen).toEqual(Array.from({ length: 500 }, (_, i) => BigInt(i)));
  });

  it("delivers what the caller sent before it closed, then the end, to the core", async () => {
    const seen: bigint[] = [];
    const end = Promise.withResolvers<ContractError | undefined>();
    const port = await connect({}, {
      exits: (channel) => {
        channel.onMessage((exit) => seen.push((exit.exit as any).value.value));
        channel.onClose(end.resolve);
      },
    });
    const channel = port.device.exits();
    for (let i = 0n; i < 20n; i++) channel.send(write(i));
    channel.close();
    expect(await end.promise).toBeUndefined();
    expect(seen.length).toBe(20);
    expect(channel.send(write(1n))).toBe(false);
  });

  it("ends the stream with internal when a listener of the core throws; later calls still work", async () => {
    const port = await connect({ runHarts: () => ({}) }, {
      exits: (channel) => {
        channel.onMessage(() => {
          throw new TypeError("bug in a device");
        });
      },
    });
    const channel = port.device.exits();
    const end = ended(channel);
    channel.send(write(1n));
    expect(await end).toMatchObject({ condition: "internal", message: "bug in a device" });
    await port.cpu.runHarts({ machine: "m" });
  });

  it("tells a sender that its receiver is slow, and when it has caught up", async () => {
    let received = 0;
    let core: Channel<any, any> | undefined;
    const opened = Promise.withResolvers<void>();
    const port = await connect({}, {
      exits: (channel) => {
        core = channel;
        channel.onMessage(() => received++);
        channel.slow(true);
        opened.resolve();
      },
    });
    const channel = port.device.exits();
    const big = ExitRequest.fromPartial({ machine: "m", exit: { $case: "consoleWrite", value: { data: new Uint8Array(1 << 20) } } });
    let sent = 1;
    // The first message opens the stream on the server.
    let ready = channel.send(big);
    await opened.promise;
    while (ready && sent < 64) {
      ready = channel.send(big);
      sent++;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    expect(ready).toBe(false);
    const drained = new Promise<void>((resolve) => channel.onDrain(resolve));
    core!.slow(false);
    await drained;
    channel.close();
    await new Promise<void>((resolve) => core!.onClose(() => resolve()));
    expect(received).toBe(sent);
  });
});

describe("the gRPC adapter alone", () => {
  it("refuses with unavailable, naming the address, when nobody listens", async () => {
    const peer = connectGrpc(CPU, "unix:/tmp/polyvisor-nobody-here.sock");
    closers.push(peer.close);
    expect(await failure(peer.port.runHarts({ machine: "m" }))).toMatchObject({
      condition: "unavailable",
      message: expect.stringContaining("cpu-emulator.runHarts at unix:/tmp/polyvisor-nobody-here.sock"),
    });
    expect(await failure(peer.ready(100))).toMatchObject({ condition: "unavailable", message: expect.stringContaining("does not answer") });
  });

  it("refuses a message beyond 16 MiB without ending the server", async () => {
    const port = await grpc((directory) => `unix:${directory}/s.sock`)({ restoreHarts: () => ({}), runHarts: () => ({}) });
    expect(await failure(port.cpu.restoreHarts({ machine: "m", state: new Uint8Array(17 << 20) }))).toMatchObject({ condition: "exhausted" });
    await port.cpu.runHarts({ machine: "m" });
  });

  it("refuses bytes that are no message, on unary calls and streams, without ending the server", async () => {
    const garbage = { ...CPU, definition: { ...CPU.definition } } as any;
    for (const name of ["runHarts", "interrupts"]) garbage.definition[name] = { ...garbage.definition[name], requestSerialize: () => Buffer.from([0x0a, 0xff, 0xff]) };
    const server = createGrpcServer();
    serveGrpc(server, CPU, mediated(CPU, { runHarts: () => ({}), pauseHarts: () => ({}), interrupts: () => {} }));
    const address = await bindGrpc(server, "127.0.0.1:0");
    const bad = connectGrpc(garbage, address);
    const good = connectGrpc(CPU, address);
    closers.push(() => (bad.close(), good.close(), server.forceShutdown()));
    expect(await failure((bad.port as any).runHarts({ machine: "m" }))).toMatchObject({ condition: "internal" });
    const stream = (bad.port as any).interrupts();
    stream.send({ machine: "m" });
    expect(await ended(stream)).toMatchObject({ condition: "internal" });
    await good.port.pauseHarts({ machine: "m" });
  });

  it("fails open calls and streams with unavailable when the server dies", async () => {
    const server = createGrpcServer();
    serveGrpc(server, CPU, mediated(CPU, { runHarts: () => new Promise(() => {}), watchHarts: (_request, out) => void out.send(created) }));
    const peer = connectGrpc(CPU, await bindGrpc(server, "127.0.0.1:0"));
    closers.push(peer.close);
    const call = failure(peer.port.runHarts({ machine: "m" }));
    const channel = peer.port.watchHarts({ machine: "m" });
    await new Promise<void>((resolve) => channel.onMessage(() => resolve()));
    server.forceShutdown();
    expect((await call).condition).toMatch(/unavailable|cancelled/);
    expect((await ended(channel))?.condition).toMatch(/unavailable|cancelled/);
    expect(await failure(peer.port.runHarts({ machine: "m" }))).toMatchObject({ condition: "unavailable" });
  });

  it("carries one W3C trace through a chain of calls, and a new one for the next", async () => {
    const connectGrpcPort = grpc((directory) => `unix:${directory}/s.sock`);
    const seen: (string | undefined)[] = [];
    const back = await connectGrpcPort({
      pauseHarts: async () => {
        await new Promise((resolve) => setTimeout(resolve, 1));
        seen.push(currentTraceId());
        return {};
      },
    });
    const front = await connectGrpcPort({
      runHarts: async ({ machine }) => {
        seen.push(currentTraceId());
        return back.cpu.pauseHarts({ machine });
      },
    });
    await front.cpu.runHarts({ machine: "m" });
    await front.cpu.runHarts({ machine: "m" });
    expect(seen[0]).toMatch(/^[0-9a-f]{32}$/);
    expect([seen[1] === seen[0], seen[3] === seen[2], seen[2] === seen[0]]).toEqual([true, true, false]);
    expect(["00-0-1-01", `00-${"0".repeat(32)}-${"1".repeat(16)}-01`, undefined].map((value) => inTrace(value, currentTraceId))).toEqual([undefined, undefined, undefined]);
  });

  it("passes remote calls through the chain of the served port", async () => {
    const chain = new MediationChain(NO_MEDIATION);
    const server = createGrpcServer();
    serveGrpc(server, CPU, mediated(CPU, { runHarts: () => ({}) }, chain));
    const peer = connectGrpc(CPU, await bindGrpc(server, "127.0.0.1:0"));
    closers.push(() => (peer.close(), server.forceShutdown()));
    await peer.port.runHarts({ machine: "m" });
    expect(chain.read("m").map((e) => [e.point.method, e.point.direction, e.counters.executed])).toEqual([
      ["runHarts", "request", 1],
      ["runHarts", "response", 1],
    ]);
  });
});
