import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { KIT } from "@polyvisor/contracts/kit";
import { Action, MEDIATION, Rule } from "@polyvisor/contracts/mediation";
import { NETWORK } from "@polyvisor/contracts/network";
import { createRequire } from "node:module";
import { credentials, loadPackageDefinition, makeClientConstructor } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { service as healthDefinition } from "grpc-health-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const PROGRAM = new URL("./testing/echo-service.ts", import.meta.url).pathname;
let directory: string;
let children: ChildProcess[];
let closers: (() => void)[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pv-kit-"));
  children = [];
  closers = [];
});
afterEach(() => {
  for (const close of closers) close();
  for (const child of children) if (child.exitCode === null) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
});

interface Run {
  child: ChildProcess;
  /** Standard output so far. */
  out: () => string;
  err: () => string;
  ready: Promise<string>;
  exit: Promise<number | null>;
}
function run(...args: string[]): Run {
  const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ["pipe", "pipe", "pipe"] });
  children.push(child);
  let out = "";
  let err = "";
  const exit = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const ready = new Promise<string>((resolve, reject) => {
    child.stdout!.on("data", (chunk) => {
      out += chunk;
      const line = /^ready (.+)\n/.exec(out);
      if (line) resolve(line[1]!);
    });
    child.stderr!.on("data", (chunk) => (err += chunk));
    void exit.then((code) => reject(new Error(`exit ${code}: ${err}`)));
  });
  ready.catch(() => {});
  return { child, out: () => out, err: () => err, ready, exit };
}
const socket = () => `unix:${directory}/run/n.sock`;
function connect<D extends Parameters<typeof connectGrpc>[0]>(contract: D, address = socket()) {
  const peer = connectGrpc(contract, address);
  closers.push(peer.close);
  return peer.port as ReturnType<typeof connectGrpc<D["definition"]>>["port"];
}

/** Service names as a client such as grpcurl lists them (gRPC server reflection v1). */
async function listedByReflection(): Promise<string[]> {
  const proto = createRequire(import.meta.url).resolve("@grpc/reflection/package.json").replace("package.json", "build/proto/grpc/reflection/v1/reflection.proto");
  const { ServerReflection } = (loadPackageDefinition(loadSync(proto, { keepCase: true })) as any).grpc.reflection.v1;
  const client = new ServerReflection(socket(), credentials.createInsecure());
  closers.push(() => client.close());
  const call = client.ServerReflectionInfo();
  const answer = await new Promise<any>((resolve, reject) => {
    call.on("data", resolve);
    call.on("error", reject);
    call.write({ list_services: "" });
  });
  call.end();
  return answer.list_services_response.service.map((entry: { name: string }) => entry.name);
}

describe("runService", () => {
  it("serves the contract, KitService, MediationService and health, and ends on SIGTERM with its socket removed", async () => {
    const service = run("--listen", socket(), "--mtu", "9000");
    expect(await service.ready).toBe(`network-fabric ${socket()}`);
    expect(await connect(NETWORK).listPorts({ machine: "web" })).toMatchObject({ ports: [{ id: "web/net0" }] });
    const kit = await connect(KIT).describe({});
    expect(kit).toMatchObject({ service: "network-fabric", pid: service.child.pid, address: socket() });
    expect(kit.facts.get("mtu")).toBe("9000");
    expect(kit.unimplemented).toContain("polyvisor.network.v1.NetworkService/CreateNetwork");
    expect(kit.unimplemented).not.toContain("polyvisor.network.v1.NetworkService/ListPorts");

    const mediation = connect(MEDIATION);
    await mediation.addRule({ rule: Rule.fromPartial({ id: "no", method: "listPorts", action: Action.DENY }) });
    await expect(connect(NETWORK).listPorts({ machine: "web" })).rejects.toMatchObject({ condition: "denied" });
    await mediation.removeRule({ id: "no" });
    await connect(NETWORK).listPorts({ machine: "web" });
    const { planes } = await mediation.readCounters({ machine: "web" });
    expect(planes.find((plane) => plane.method === "listPorts")).toMatchObject({ seen: 5n, executed: 4n, denied: 1n });

    const Health = makeClientConstructor(healthDefinition as any, "health");
    const health = new Health(socket(), credentials.createInsecure()) as any;
    closers.push(() => health.close());
    const answer = await new Promise<any>((resolve, reject) =>
      health.check({ service: "polyvisor.network.v1.NetworkService" }, (error: Error | null, value: unknown) => (error ? reject(error) : resolve(value))),
    );
    expect(answer.status).toBe("SERVING");

    expect(await listedByReflection()).toEqual(
      expect.arrayContaining(["polyvisor.network.v1.NetworkService", "polyvisor.mediation.v1.MediationService", "polyvisor.kit.v1.KitService"]),
    );

    service.child.kill("SIGTERM");
    expect(await service.exit).toBe(0);
    expect(existsSync(`${directory}/run/n.sock`)).toBe(false);
  });

  it("ends promptly on SIGTERM although a stream is open", async () => {
    const service = run("--listen", socket());
    await service.ready;
    const channel = connect(NETWORK).frames();
    const batch = { machine: "m", port: "p", frames: [], credit: 1, linkUp: true, takesOffload: false };
    const echoed = new Promise((resolve) => channel.onMessage(resolve));
    channel.send(batch);
    expect(await echoed).toEqual(batch);
    const end = new Promise<unknown>((resolve) => channel.onClose(resolve));
    service.child.kill("SIGTERM");
    expect(await service.exit).toBe(0);
    expect(await end).toMatchObject({ condition: expect.stringMatching(/unavailable|cancelled/) });
  });

  it("answers unavailable, naming the peer's address, when a peer is not running, and keeps serving", async () => {
    const service = run("--listen", socket(), "--image-registry", `unix:${directory}/nobody.sock`);
    await service.ready;
    await expect(connect(NETWORK).listNetworks({})).rejects.toMatchObject({ condition: "unavailable", message: expect.stringContaining("nobody.sock") });
    await connect(NETWORK).listPorts({ machine: "m" });
  });

  it("ends when standard input closes, if asked to", async () => {
    const service = run("--listen", socket(), "--exit-with-stdin");
    await service.ready;
    service.child.stdin!.end();
    expect(await service.exit).toBe(0);
  });

  it("takes over the socket of a process that was killed, and refuses one that is served", async () => {
    const first = run("--listen", socket());
    await first.ready;
    const second = run("--listen", socket());
    expect(await second.exit).toBe(1);
    expect(second.err()).toContain("another process does");
    first.child.kill("SIGKILL");
    await first.exit;
    expect(existsSync(`${directory}/run/n.sock`)).toBe(true);
    await run("--listen", socket()).ready;
  });

  it("refuses to replace a file that is no socket", async () => {
    writeFileSync(`${directory}/n.sock`, "mine");
    const service = run("--listen", `unix:${directory}/n.sock`);
    expect(await service.exit).toBe(1);
    expect(service.err()).toContain("is no socket");
  });

  it("says what is wrong with a TCP port in use", async () => {
    const taken = createServer();
    const port = await new Promise<number>((resolve) => taken.listen(0, "127.0.0.1", () => resolve((taken.address() as { port: number }).port)));
    closers.push(() => taken.close());
    const service = run("--listen", `127.0.0.1:${port}`);
    expect(await service.exit).toBe(1);
    expect(service.err()).toContain(`cannot listen on 127.0.0.1:${port}`);
  });

  it("exits 2 and names every problem of a bad configuration", async () => {
    const service = run("--mtu", "12", "--listen", "nowhere");
    expect(await service.exit).toBe(2);
    expect(service.err()).toMatch(/--mtu: expected a whole number from 576 to 65535, got \\"12\\".*--listen: expected/);
    const unknown = run("--mtuu", "12");
    expect(await unknown.exit).toBe(2);
    expect(unknown.err()).toContain("--mtuu");
  });

  it("prints every option with its environment variable and default on --help", async () => {
    const service = run("--help");
    expect(await service.exit).toBe(0);
    expect(service.out()).toMatch(/--mtu N\s+PV_MTU\s+largest frame \(default 1500\)/);
    expect(service.out()).toMatch(/--image-registry ADDRESS\s+PV_IMAGE_REGISTRY/);
  });
});
