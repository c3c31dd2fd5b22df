import type { NetworkPort } from "@polyvisor/contracts/network";
import { PublishRequest } from "@polyvisor/contracts/network";
import { type CheckGuest, GUEST_PORT } from "./guest.ts";
import { type CaseName, CASES, type Reach, type Row } from "./matrix.ts";
import { askFromHost, HOST_ON_BRIDGE, HostServer, type Outside } from "./outside.ts";

export interface Outcome {
  readonly mode: string;
  readonly case: CaseName;
  readonly expected: Reach;
  readonly actual: Reach;
  /** Who was asked, where, and what was said. */
  readonly detail: string;
}
export interface CheckInput {
  readonly fabric: NetworkPort;
  readonly guests: readonly [a: CheckGuest, b: CheckGuest];
  readonly outside: Outside;
  readonly rows: readonly Row[];
  progress(line: string): void;
}

/** Moves two guests through the networks and asks, in each, who reaches whom. */
export async function* runCheck(input: CheckInput): AsyncGenerator<Outcome[]> {
  for (const row of input.rows) {
    input.progress(row.title);
    yield await checkRow(row, input);
  }
}

async function checkRow(row: Row, { fabric, guests, outside }: CheckInput): Promise<Outcome[]> {
  const [a, b] = guests;
  const name = row.network ? `check-${row.title.replaceAll(/[^a-z]+/g, "-")}` : "nat";
  const closers: (() => unknown)[] = [];
  try {
    let hostAddress = "10.0.2.2"; // on NAT, the gateway stands for the host's loopback
    let serverAddress = "127.0.0.1";
    if (row.network) {
      const network = (await fabric.createNetwork({ network: row.network(name, outside.bridge) })).network!;
      closers.push(() => fabric.deleteNetwork({ name }));
      hostAddress = network.hostAddress || network.gateway || HOST_ON_BRIDGE;
      serverAddress = network.hostAddress || (network.gateway ? "127.0.0.1" : HOST_ON_BRIDGE);
    }
    for (const guest of guests) await fabric.movePort({ port: guest.port, network: name });
    closers.push(async () => {
      for (const guest of guests) await fabric.movePort({ port: guest.port, network: "nat" });
    });
    const [addressA, addressB] = await Promise.all(guests.map((guest, i) => guest.takeAddress(row.addresses?.[i]))) as [string, string];
    const server = await HostServer.open(serverAddress);
    closers.push(() => server.close());
    let published: { address: string; port: number } | undefined;
    if (row.published) {
      const { forward } = await fabric.publish(PublishRequest.fromPartial({ machine: a.name, bind: HOST_ON_BRIDGE, guestPort: GUEST_PORT, port: a.port, guestAddress: addressA }));
      closers.push(() => fabric.unpublish({ id: forward!.id }));
      published = { address: HOST_ON_BRIDGE, port: forward!.hostPort };
    }
    const direct = { address: addressA || "192.0.2.1", port: GUEST_PORT };
    const [[saidOutside, saidHost, saidB], fromHost, fromOutside] = await Promise.all([
      a.ask([{ address: outside.address, port: outside.port }, { address: hostAddress, port: server.port }, { address: addressB || "192.0.2.1", port: GUEST_PORT }]),
      reach(askFromHost, direct, published),
      reach((address, port) => outside.ask(address, port), direct, published),
    ]);
    const said = (text: string | undefined, wanted: string): Reach => (text === wanted ? "yes" : "no");
    const named = ({ direct: there, port }: { direct: string; port: string }): Reach => (there === a.name ? "yes" : port === a.name ? "port" : "no");
    const actual: Record<CaseName, [Reach, string]> = {
      A: [said(saidOutside, "outside"), `${addressA} asked ${outside.address}:${outside.port}, heard "${saidOutside}"`],
      H: [said(saidHost, "host"), `${addressA} asked ${hostAddress}:${server.port}, heard "${saidHost}"`],
      B: [named(fromHost), `asked ${direct.address}, heard "${fromHost.direct}"${published ? `; asked ${published.address}:${published.port}, heard "${fromHost.port}"` : ""}`],
      C: [named(fromOutside), `asked ${direct.address}, heard "${fromOutside.direct}"${published ? `; asked ${published.address}:${published.port}, heard "${fromOutside.port}"` : ""}`],
      D: [said(saidB, b.name), `${addressA} asked ${addressB}, heard "${saidB}"`],
    };
    return (Object.keys(CASES) as CaseName[]).map((each) => ({ mode: row.title, case: each, expected: row.expected[each], actual: actual[each][0], detail: actual[each][1] }));
  } finally {
    for (const close of closers.toReversed()) await Promise.try(close).catch(() => {});
  }
}

type Ask = (address: string, port: number) => Promise<string>;
interface Target {
  readonly address: string;
  readonly port: number;
}
async function reach(ask: Ask, direct: Target, published: Target | undefined): Promise<{ direct: string; port: string }> {
  const [there, port] = await Promise.all([ask(direct.address, direct.port), published ? ask(published.address, published.port) : ""]);
  return { direct: there, port };
}
