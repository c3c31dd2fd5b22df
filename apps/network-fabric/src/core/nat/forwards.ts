import { ContractError } from "@polyvisor/contracts";
import type { Forward, PublishRequest } from "@polyvisor/contracts/network";
import { formatIpv4, parseIpv4, type Ipv4Address } from "@polyvisor/wire";
import type { HostAddress, HostListener, HostNetwork } from "./host-network.ts";
import { HostError } from "./host-network.ts";
import type { Nat } from "./nat.ts";

/** Vagrant's usable_port_range: where a port that is in use is corrected to. */
export const AUTO_CORRECT = { first: 2200, last: 2250 } as const;
/** Forwards at a time. */
const MAXIMUM_FORWARDS = 1024;

/** A port of the fabric behind a NAT, as a forward reaches it. */
export interface ForwardTarget {
  /** Of the fabric. */
  readonly port: string;
  readonly machine: string;
  readonly nat: Nat;
  /** From which forwarded connections come, as the guest sees it. */
  readonly gateway: Ipv4Address;
  /** That the guest has now, if it is known. */
  guestAddress(): Ipv4Address | undefined;
}
export interface ForwardSurroundings {
  readonly host: HostNetwork;
  /** The named port, or the machine's first one behind a NAT; undefined: there is none. */
  target(machine: string, port: string): ForwardTarget | undefined;
  /** Who has a port of the host, in words; undefined: it cannot be told. */
  ownerOf?(protocol: "tcp" | "udp", bind: HostAddress): string | undefined;
  save(forward: Forward): void;
  remove(id: string): void;
}

interface Entry {
  readonly forward: Forward;
  listener: HostListener | undefined;
}
type Checked = PublishRequest & { protocol: "tcp" | "udp" };

/** Ports of the host that lead to guests: added and removed while everything runs, and back after a restart. */
export class Forwards {
  readonly #around: ForwardSurroundings;
  readonly #entries = new Map<string, Entry>();

  constructor(around: ForwardSurroundings) {
    this.#around = around;
  }

  async publish(request: PublishRequest): Promise<Forward> {
    const checked = check(request);
    const { machine, protocol, bind, guestPort, guestAddress, autoCorrect } = checked;
    const target = this.#around.target(machine, request.port);
    if (!target) {
      const what = request.port ? `port ${JSON.stringify(request.port)} behind a NAT` : "port behind a NAT";
      throw new ContractError("not-found", `publish: machine ${JSON.stringify(machine)} has no ${what}; forwards need mode nat or natnetwork`);
    }
    const same = [...this.#entries.values()].find(({ forward }) => forward.hostPort === checked.hostPort && forward.bind === bind && forward.protocol === protocol);
    if (same && same.forward.port === target.port && same.forward.guestPort === guestPort && same.forward.guestAddress === guestAddress) return this.#show(same);
    if (this.#entries.size >= MAXIMUM_FORWARDS) throw new ContractError("exhausted", `publish: ${MAXIMUM_FORWARDS} forwards exist; remove one`);
    const wanted = checked.hostPort;
    const candidates = [wanted, ...(autoCorrect ? range(AUTO_CORRECT.first, AUTO_CORRECT.last) : [])];
    let refusal: ContractError | undefined;
    for (const hostPort of candidates) {
      const forward: Forward = { id: "", machine: target.machine, port: target.port, protocol, bind, hostPort, guestPort, guestAddress, connections: 0n, problem: "" };
      try {
        return await this.#open(forward);
      } catch (error) {
        if (!(error instanceof ContractError) || error.condition !== "conflict") throw error;
        refusal ??= error;
      }
    }
    throw autoCorrect ? new ContractError("conflict", `${refusal!.message}; and ${AUTO_CORRECT.first} to ${AUTO_CORRECT.last} are all in use, too`) : refusal!;
  }
  async #open(forward: Forward): Promise<Forward> {
    const taken = forward.hostPort === 0 ? undefined : this.#entries.get(idOf(forward));
    if (taken) throw this.#inUse(forward, `machine ${taken.forward.machine}, forwarded to its port ${taken.forward.guestPort} (${taken.forward.id})`);
    const entry: Entry = { forward, listener: undefined };
    try {
      entry.listener = await this.#listen(entry);
    } catch (error) {
      throw this.#explain(forward, error);
    }
    forward.hostPort = entry.listener.port;
    forward.id = idOf(forward);
    this.#entries.set(forward.id, entry);
    this.#around.save(forward);
    return this.#show(entry);
  }
  /** What was there before the service stopped. A port that somebody else has taken meanwhile is shown with its problem. */
  async restore(saved: readonly Forward[]): Promise<void> {
    for (const forward of saved) {
      const entry: Entry = { forward: { ...forward, connections: 0n, problem: "" }, listener: undefined };
      this.#entries.set(forward.id, entry);
      try {
        entry.listener = await this.#listen(entry);
      } catch (error) {
        entry.forward.problem = this.#explain(forward, error).message;
      }
    }
  }
  unpublish(id: string): void {
    const entry = this.#entries.get(id);
    if (!entry) return; // already so
    entry.listener?.close();
    this.#entries.delete(id);
    this.#around.remove(id);
  }
  /** The fabric's port is gone, and what led to it. */
  portRemoved(port: string): void {
    for (const [id, { forward }] of [...this.#entries]) if (forward.port === port) this.unpublish(id);
  }
  list(machine: string): Forward[] {
    return [...this.#entries.values()].filter(({ forward }) => !machine || forward.machine === machine).map((entry) => this.#show(entry));
  }
  close(): void {
    for (const { listener } of this.#entries.values()) listener?.close();
    this.#entries.clear();
  }

  #show({ forward }: Entry): Forward {
    return { ...forward };
  }
  #listen(entry: Entry): Promise<HostListener> {
    return entry.forward.protocol === "tcp" ? this.#listenTcp(entry) : this.#listenUdp(entry);
  }
  #destination({ forward }: Entry): { target: ForwardTarget; guest: Ipv4Address } | undefined {
    const target = this.#around.target(forward.machine, forward.port);
    const guest = forward.guestAddress ? parseIpv4(forward.guestAddress) : target?.guestAddress();
    return target && guest !== undefined ? { target, guest } : undefined;
  }
  #listenTcp(entry: Entry): Promise<HostListener> {
    const { bind, hostPort, guestPort } = entry.forward;
    return this.#around.host.listen({ address: bind, port: hostPort }, (stream, listen) => {
      const to = this.#destination(entry);
      const flow = to?.target.nat.tcp.inbound(to.guest, guestPort, to.target.gateway, stream, entry.forward.id);
      if (!flow) return stream.reset(); // no guest there yet: as if nobody listened
      entry.forward.connections++;
      listen(flow);
    });
  }
  async #listenUdp(entry: Entry): Promise<HostListener> {
    const { bind, hostPort, guestPort } = entry.forward;
    const socket = await this.#around.host.bindDatagrams({ address: bind, port: hostPort }, (data, from) => {
      const to = this.#destination(entry);
      const fresh = to?.target.nat.udp.inbound(to.guest, guestPort, data, { from, reply: (answer) => socket.send(answer, from), forward: entry.forward.id });
      if (fresh) entry.forward.connections++;
    });
    return socket;
  }

  #explain(forward: Forward, error: unknown): ContractError {
    if (!(error instanceof HostError)) throw error;
    const { protocol, bind, hostPort } = forward;
    if (error.failure === "in-use") {
      const owner = this.#around.ownerOf?.(protocol as "tcp" | "udp", { address: bind, port: hostPort });
      return this.#inUse(forward, owner ?? "another program");
    }
    const where = `${protocol} ${bind}:${hostPort}`;
    if (error.failure === "denied") return new ContractError("denied", `publish: ${where}: ports below 1024 need privileges; take a higher one`, { cause: error });
    if (error.failure === "network-unreachable") return new ContractError("invalid", `publish: ${bind} is no address of this host`, { cause: error });
    return new ContractError("unavailable", `publish: ${where}: ${error.message}`, { cause: error });
  }
  #inUse({ protocol, bind, hostPort }: Forward, owner: string): ContractError {
    return new ContractError("conflict", `publish: ${protocol} ${bind}:${hostPort} is in use by ${owner}; take another host port, or let auto-correct choose one`);
  }
}

function idOf({ protocol, bind, hostPort }: Forward): string {
  return `${protocol}/${bind.includes(":") ? `[${bind}]` : bind}:${hostPort}`;
}
function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
function check(request: PublishRequest): Checked {
  const refuse = (what: string) => new ContractError("invalid", `publish: ${what}`);
  const { machine, hostPort, guestPort, guestAddress } = request;
  const protocol = request.protocol || "tcp";
  const bind = request.bind || "127.0.0.1";
  if (!machine) throw refuse("no machine");
  if (protocol !== "tcp" && protocol !== "udp") throw refuse(`protocol ${JSON.stringify(protocol)}; give tcp or udp`);
  const v4 = parseIpv4(bind);
  if (v4 === undefined && !/^[0-9a-f:]*:[0-9a-f:.]*$/i.test(bind)) throw refuse(`bind address ${JSON.stringify(bind)}; give an address of the host, such as 127.0.0.1 or 0.0.0.0`);
  if (guestPort < 1 || guestPort > 65_535) throw refuse(`guest port ${guestPort}; give 1 to 65535`);
  if (hostPort > 65_535) throw refuse(`host port ${hostPort}; give 1 to 65535, or 0 for any`);
  if (guestAddress && parseIpv4(guestAddress) === undefined) throw refuse(`guest address ${JSON.stringify(guestAddress)}; give an IPv4 address`);
  return { ...request, protocol, bind: v4 === undefined ? bind : formatIpv4(v4) };
}
