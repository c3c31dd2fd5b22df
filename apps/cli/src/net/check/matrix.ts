import { Network, NetworkMode } from "@polyvisor/contracts/network";

/** Who begins, and who is to answer (issue "The network fabric"). */
export const CASES = {
  A: "guest → outside",
  H: "guest → host",
  B: "host → guest",
  C: "outside → guest",
  D: "guest ↔ guest",
} as const;
export type CaseName = keyof typeof CASES;
/** port: not at its own address, but through a published port. */
export type Reach = "yes" | "no" | "port";

export interface Row {
  readonly title: string;
  /** Undefined: the default network. */
  readonly network: ((name: string, bridge: string) => Network) | undefined;
  /** Addresses are set by hand: nobody on the network gives them out. Of guest a and guest b. */
  readonly addresses: readonly [a: string, b: string] | undefined;
  /** A port of guest a is published on the host. */
  readonly published: boolean;
  readonly expected: Readonly<Record<CaseName, Reach>>;
}

const expected = (A: Reach, H: Reach, B: Reach, C: Reach, D: Reach): Row["expected"] => ({ A, H, B, C, D });

/** Prefix of the network outside: TEST-NET-2 (RFC 5737), which nobody has. */
export const OUTSIDE_SUBNET = "198.51.100";

/** The course's matrix: every mode, and what reaches what in it. */
export const ROWS: readonly Row[] = [
  { title: "nat", network: undefined, addresses: undefined, published: false, expected: expected("yes", "yes", "no", "no", "no") },
  { title: "nat + forward", network: undefined, addresses: undefined, published: true, expected: expected("yes", "yes", "port", "port", "no") },
  {
    title: "natnetwork",
    network: (name) => Network.fromPartial({ name, mode: NetworkMode.NAT_NETWORK }),
    addresses: undefined,
    published: true,
    expected: expected("yes", "yes", "port", "port", "yes"),
  },
  {
    title: "bridged",
    network: (name, bridge) => Network.fromPartial({ name, mode: NetworkMode.BRIDGED, interface: bridge }),
    addresses: [`${OUTSIDE_SUBNET}.10`, `${OUTSIDE_SUBNET}.11`],
    published: false,
    expected: expected("yes", "yes", "yes", "yes", "yes"),
  },
  {
    title: "internal",
    network: (name) => Network.fromPartial({ name, mode: NetworkMode.INTERNAL }),
    addresses: ["10.231.77.10", "10.231.77.11"],
    published: false,
    expected: expected("no", "no", "no", "no", "yes"),
  },
  {
    title: "hostonly",
    network: (name) => Network.fromPartial({ name, mode: NetworkMode.HOST_ONLY }),
    addresses: undefined,
    published: false,
    expected: expected("no", "yes", "yes", "no", "yes"),
  },
  {
    title: "natnetwork + host",
    network: (name) => Network.fromPartial({ name, mode: NetworkMode.NAT_NETWORK, joinHost: true }),
    addresses: undefined,
    published: true,
    expected: expected("yes", "yes", "yes", "port", "yes"),
  },
];
