import { execFile, spawn, type ChildProcess } from "node:child_process";
import { createConnection, createServer, type Server } from "node:net";
import { promisify } from "node:util";
import { CliError } from "../../cli-error.ts";
import { OUTSIDE_SUBNET } from "./matrix.ts";

const run = promisify(execFile);
const OUTSIDE = `${OUTSIDE_SUBNET}.2`;
export const HOST_ON_BRIDGE = `${OUTSIDE_SUBNET}.1`;
const CONNECT_MS = 2500;
/** Names end with the process that made them, in base 36. */
const [BRIDGE, NAMESPACE] = ["pvo", "pv-out-"];

/** Answers every connection with a name, and closes. */
const SERVER = (name: string, address: string): string =>
  `const s=require("net").createServer((c)=>{c.on("error",()=>{});c.end(${JSON.stringify(name)})});s.listen(0,${JSON.stringify(address)},()=>console.log(s.address().port));process.stdin.resume().on("end",()=>process.exit())`;
/** Prints what a server says, or nothing. */
const CLIENT = (address: string, port: number): string =>
  `const c=require("net").connect(${port},${JSON.stringify(address)});c.setTimeout(${CONNECT_MS},()=>process.exit());c.on("error",()=>process.exit()).pipe(process.stdout)`;

/**
 * "Outside": a network namespace with an address of its own, on a bridge of the host. What guests reach there has gone
 * through the host's stack; what reaches guests from there comes as from another machine.
 */
export class Outside {
  readonly namespace: string;
  readonly bridge: string;
  readonly address = OUTSIDE;
  /** Where its server listens. */
  port = 0;
  readonly #server: ChildProcess;

  private constructor(namespace: string, bridge: string, server: ChildProcess) {
    this.namespace = namespace;
    this.bridge = bridge;
    this.#server = server;
  }

  static async open(): Promise<Outside> {
    const id = process.pid.toString(36);
    const [namespace, bridge, near, far] = [`${NAMESPACE}${id}`, `${BRIDGE}${id}`, `pvn${id}`, `pvf${id}`];
    const ip = (...args: string[]): Promise<unknown> => run("ip", args);
    try {
      await removeStale();
      await ip("netns", "add", namespace);
      await ip("link", "add", bridge, "type", "bridge");
      await ip("link", "add", near, "type", "veth", "peer", "name", far);
      await ip("link", "set", far, "netns", namespace);
      await ip("link", "set", near, "master", bridge);
      await ip("addr", "add", `${HOST_ON_BRIDGE}/24`, "dev", bridge);
      for (const each of [bridge, near]) await ip("link", "set", each, "up");
      const inside = (...args: string[]): Promise<unknown> => ip("-n", namespace, ...args);
      await inside("addr", "add", `${OUTSIDE}/24`, "dev", far);
      for (const each of ["lo", far]) await inside("link", "set", each, "up");
      await inside("route", "add", "default", "via", HOST_ON_BRIDGE);
      const server = spawn("ip", ["netns", "exec", namespace, process.execPath, "-e", SERVER("outside", OUTSIDE)], { stdio: ["pipe", "pipe", "ignore"] });
      const outside = new Outside(namespace, bridge, server);
      outside.port = await firstNumber(server);
      return outside;
    } catch (error) {
      await remove(namespace, bridge);
      const { message } = error as Error;
      throw new CliError(`hv net check makes a bridge and a network namespace on this host, which takes root on Linux with iproute2 (ip): ${message.trim()}`);
    }
  }
  /** What a server at the address says to somebody outside; empty: nobody answers. */
  async ask(address: string, port: number): Promise<string> {
    const { stdout } = await run("ip", ["netns", "exec", this.namespace, process.execPath, "-e", CLIENT(address, port)], { timeout: 20_000 }).catch(() => ({ stdout: "" }));
    return stdout;
  }
  async close(): Promise<void> {
    this.#server.kill();
    await remove(this.namespace, this.bridge);
  }
}

/** What a killed check has left: two bridges with the same subnet would both be the host's way there. */
export async function removeStale(): Promise<void> {
  const list = async (...args: string[]): Promise<string[]> => {
    const { stdout } = await run("ip", args).catch(() => ({ stdout: "" }));
    return stdout.split("\n").map((line) => line.replace(/^\d+: /, "").split(/[: @]/)[0]!);
  };
  const ended = (prefix: string) => (name: string) => name.startsWith(prefix) && /^[0-9a-z]+$/.test(name.slice(prefix.length)) && !runs(parseInt(name.slice(prefix.length), 36));
  for (const bridge of (await list("-o", "link", "show", "type", "bridge")).filter(ended(BRIDGE))) await run("ip", ["link", "del", bridge]).catch(() => {});
  for (const namespace of (await list("netns", "list")).filter(ended(NAMESPACE))) await run("ip", ["netns", "del", namespace]).catch(() => {});
}
function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
async function remove(namespace: string, bridge: string): Promise<void> {
  await run("ip", ["link", "del", bridge]).catch(() => {});
  await run("ip", ["netns", "del", namespace]).catch(() => {}); // and with it the veth pair
}
function firstNumber(server: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    server.stdout!.once("data", (data: Buffer) => resolve(Number(data.toString())));
    server.once("error", reject);
    server.once("exit", (code) => reject(new Error(`the server outside ended with ${code}`)));
  });
}

/** A server of the host at one address. */
export class HostServer {
  readonly port: number;
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }
  static async open(address: string): Promise<HostServer> {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.end("host");
    });
    await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, address, resolve));
    return new HostServer(server, (server.address() as { port: number }).port);
  }
  close(): void {
    this.#server.close();
  }
}

/** What a server says to the host; empty: nobody answers. */
export function askFromHost(address: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = createConnection({ host: address, port });
    const end = (): void => {
      socket.destroy();
      resolve(text);
    };
    socket.setTimeout(CONNECT_MS, end);
    socket.on("data", (data) => (text += data.toString())).on("error", end).on("close", end);
  });
}
