import { type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { connectGrpc } from "@polyvisor/contracts/grpc";
import { NETWORK, Port, type NetworkPort } from "@polyvisor/contracts/network";
import { temporaryDirectory } from "@polyvisor/testkit";
import { vi } from "vitest";
import { Namespace } from "./namespaces.ts";

export const GATEWAY = "10.0.2.2";
const MAC = "52:54:00:00:00:15";

/**
 * The guest is a Linux kernel's own stack at native speed: a namespace behind a TAP interface that is a port of the fabric. The
 * fabric, its own process, lives in a namespace that plays the host (192.0.2.1); the outside (192.0.2.2) is a third.
 */
export class NatRig {
  readonly guest = new Namespace("guest");
  readonly host = new Namespace("host");
  readonly world = new Namespace("world");
  readonly tap = `pvt${process.pid}`;
  service!: ChildProcess;
  fabric!: NetworkPort;
  #closeConnection = () => {};
  readonly #directory = temporaryDirectory("pv-nat-");

  static async start(): Promise<NatRig> {
    const rig = new NatRig();
    const { host, world } = rig;
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", world.name);
    host.run("ip", "address", "add", "192.0.2.1/24", "dev", "up0");
    host.run("ip", "link", "set", "up0", "up");
    world.run("ip", "address", "add", "192.0.2.2/24", "dev", "up1");
    world.run("ip", "link", "set", "up1", "up");
    await rig.startFabric();
    await rig.fabric.createPort({ port: Port.fromPartial({ id: "peer/net0", machine: "peer", mac: MAC, peer: `tap:${rig.tap}` }) });
    rig.plugIn();
    return rig;
  }
  async startFabric(): Promise<void> {
    const main = new URL("../main.ts", import.meta.url).pathname;
    const socket = join(this.#directory.path, "fabric.sock");
    this.service = this.host.spawn(process.execPath, [main], { PV_LISTEN: `unix:${socket}`, PV_STATE_DIR: join(this.#directory.path, "state"), PV_LOG_LEVEL: "error" });
    await vi.waitUntil(() => existsSync(socket), { timeout: 60_000 });
    const connection = connectGrpc(NETWORK, `unix:${socket}`);
    this.fabric = connection.port;
    this.#closeConnection = () => connection.close();
    await vi.waitUntil(() => this.fabric.listNetworks({}).then(() => true, () => false), { timeout: 60_000 });
  }
  async killFabric(): Promise<void> {
    this.#closeConnection();
    this.service.kill("SIGKILL");
    await new Promise((resolve) => this.service.once("exit", resolve));
  }
  /** The TAP interface goes to the guest, which gets its address by hand. */
  plugIn(mtu = 1500): void {
    const { guest, host, tap } = this;
    host.run("ip", "link", "set", tap, "netns", guest.name);
    guest.run("ip", "link", "set", tap, "address", MAC, "mtu", String(mtu), "up"); // another one would be spoofed
    guest.run("ip", "address", "add", "10.0.2.15/24", "dev", tap);
    guest.run("ip", "route", "add", "default", "via", GATEWAY);
  }
  close(): void {
    this.#closeConnection();
    for (const namespace of [this.guest, this.host, this.world]) namespace.close();
    this.#directory[Symbol.dispose]();
  }
}
