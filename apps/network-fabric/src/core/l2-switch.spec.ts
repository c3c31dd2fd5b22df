import fc from "fast-check";
import type { Frame } from "@polyvisor/contracts/network";
import { MAC_BROADCAST, writeMac } from "@polyvisor/wire";
import { describe, expect, it } from "vitest";
import { L2Switch, MAC_AGE_MS, MAX_ADDRESSES, MAX_ADDRESSES_PER_PORT } from "./l2-switch.ts";
import { vlanRule } from "./vlan.ts";

function setUp(count: number) {
  let now = 0;
  const bridge = new L2Switch(() => now);
  const ports = Array.from({ length: count }, () => {
    const got: Frame[] = [];
    return { got, deliver: (frame: Frame) => void got.push(frame) };
  });
  for (const port of ports) bridge.attach(port);
  /** Indices of the ports that get a frame. */
  const send = (from: number, source: number, destination: number): number[] => {
    for (const { got } of ports) got.length = 0;
    const frame = new Uint8Array(60);
    writeMac(frame, 0, destination);
    writeMac(frame, 6, source);
    bridge.forward(ports[from]!, { data: frame, offload: undefined });
    return ports.flatMap(({ got }, i) => (got.length > 0 ? [i] : []));
  };
  return { bridge, ports, send, advance: (ms: number) => (now += ms) };
}
const A = 0x525400000001;
const B = 0x525400000002;

describe("learning (IEEE 802.1Q, 8.7)", () => {
  it("unknown → flooded; heard → to its port; moved → to the new port", () => {
    const { send } = setUp(3);
    expect(send(0, A, B)).toEqual([1, 2]);
    expect(send(1, B, A)).toEqual([0]);
    expect(send(0, A, B)).toEqual([1]);
    expect(send(2, B, MAC_BROADCAST)).toEqual([0, 1]);
    expect(send(0, A, B)).toEqual([2]);
  });
  it("to an address on its own port → nowhere", () => {
    const { send } = setUp(2);
    send(0, A, MAC_BROADCAST);
    send(0, B, MAC_BROADCAST);
    expect(send(0, B, A)).toEqual([]);
  });
  it("forgotten after the ageing time, and when its port goes", () => {
    const { send, advance, bridge, ports } = setUp(3);
    send(1, B, MAC_BROADCAST);
    advance(MAC_AGE_MS - 1);
    expect(send(0, A, B)).toEqual([1]);
    advance(1);
    expect(send(0, A, B)).toEqual([1, 2]);
    send(1, B, MAC_BROADCAST);
    bridge.detach(ports[1]!);
    expect(send(0, A, B)).toEqual([2]);
  });
  it("group source addresses and reserved destinations → dropped", () => {
    const { send } = setUp(2);
    expect(send(0, MAC_BROADCAST, B)).toEqual([]);
    expect(send(0, A, 0x0180c2000000)).toEqual([]);
    expect(send(0, A, 0x0180c200000f)).toEqual([]);
    expect(send(0, A, 0x0180c2000010)).toEqual([1]);
  });
  it("a guest that invents addresses fills its share of the table and no more; others are still learned; old ones make room", () => {
    const { send, bridge, advance } = setUp(3);
    for (let i = 0; i < MAX_ADDRESSES + 100; i++) send(0, 0x020000000000 + i, B);
    expect(bridge.addresses).toBe(MAX_ADDRESSES_PER_PORT);
    send(1, B, MAC_BROADCAST);
    expect(send(2, A, B)).toEqual([1]);
    advance(MAC_AGE_MS);
    send(0, 0x060000000000, B);
    expect(bridge.addresses).toBe(1);
  });
  it("a port whose cable is pulled is forgotten: its addresses are unknown again", () => {
    const { send, bridge, ports } = setUp(3);
    send(1, B, MAC_BROADCAST);
    bridge.forget(ports[1]!);
    expect(send(0, A, B)).toEqual([1, 2]);
    expect(bridge.addresses).toBe(1);
  });
  it("never back to the sender, whatever is sent", () => {
    const mac = fc.oneof(fc.constantFrom(A, B, MAC_BROADCAST), fc.nat(0xffff_ffff_ffff));
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(2), mac, mac), { maxLength: 30 }), (steps) => {
        const { send } = setUp(3);
        for (const [from, source, destination] of steps) expect(send(from, source, destination)).not.toContain(from);
      }),
    );
  });
});

describe("storms", () => {
  it("frames for everybody beyond the limit are dropped and counted; unicast to a known station is not limited", () => {
    let now = 0;
    const bridge = new L2Switch(() => now, 10);
    const got = [0, 0];
    const ports = got.map((_, i) => ({ deliver: () => void got[i]!++ }));
    for (const port of ports) bridge.attach(port);
    const frame = (destination: number, source: number) => {
      const bytes = new Uint8Array(60);
      writeMac(bytes, 0, destination);
      writeMac(bytes, 6, source);
      return { data: bytes, offload: undefined };
    };
    bridge.forward(ports[1]!, frame(MAC_BROADCAST, B));
    for (let i = 0; i < 100; i++) bridge.forward(ports[0]!, frame(MAC_BROADCAST, A));
    expect(got[1]).toBe(10);
    expect(bridge.counters.dropped_storm).toBe(90);
    for (let i = 0; i < 100; i++) bridge.forward(ports[0]!, frame(B, A));
    expect(got[1]).toBe(110);
    now += 500;
    for (let i = 0; i < 100; i++) bridge.forward(ports[0]!, frame(MAC_BROADCAST, A));
    expect(got[1]).toBe(115);
  });
});

describe("VLANs (IEEE 802.1Q)", () => {
  const tag = (frame: Uint8Array, vid: number) => Uint8Array.of(...frame.subarray(0, 12), 0x81, 0, vid >> 8, vid & 255, ...frame.subarray(12));
  const broadcast = () => {
    const bytes = new Uint8Array(60);
    writeMac(bytes, 0, MAC_BROADCAST);
    writeMac(bytes, 6, A);
    return bytes.fill(7, 14);
  };
  function setUpVlans(...rules: [vlan: number, trunk: number[]][]) {
    const bridge = new L2Switch(() => 0);
    const ports = rules.map(([vlan, trunk]) => {
      const got: Uint8Array[] = [];
      return { got, vlan: vlanRule(vlan, trunk), deliver: ({ data }: Frame) => void got.push(data) };
    });
    for (const port of ports) bridge.attach(port);
    return {
      bridge,
      send(from: number, frame: Uint8Array): (Uint8Array | undefined)[] {
        for (const { got } of ports) got.length = 0;
        bridge.forward(ports[from]!, { data: frame, offload: undefined });
        return ports.map(({ got }) => got[0]);
      },
    };
  }

  it("access ports of one VLAN meet, untagged; a trunk gets the frame with its tag, a transparent port too", () => {
    const { send } = setUpVlans([10, []], [10, []], [20, []], [0, [10, 20]], [0, []]);
    expect(send(0, broadcast())).toEqual([undefined, broadcast(), undefined, tag(broadcast(), 10), tag(broadcast(), 10)]);
  });
  it("a tagged frame from a trunk reaches the access ports of its VLAN without the tag; VLANs that the trunk lacks are dropped and counted", () => {
    const { send, bridge } = setUpVlans([10, []], [20, []], [0, [10]]);
    expect(send(2, tag(broadcast(), 10))).toEqual([broadcast(), undefined, undefined]);
    expect(send(2, tag(broadcast(), 20))).toEqual([undefined, undefined, undefined]);
    expect(send(2, broadcast())).toEqual([undefined, undefined, undefined]); // no native VLAN
    expect(bridge.counters.dropped_vlan).toBe(2);
  });
  it("a guest on an access port cannot hop: tagged frames are dropped", () => {
    const { send } = setUpVlans([10, []], [20, []]);
    expect(send(0, tag(broadcast(), 20))).toEqual([undefined, undefined]);
  });
  it("the native VLAN of a trunk is untagged on it", () => {
    const { send } = setUpVlans([10, [20]], [10, []], [20, []]);
    expect(send(0, broadcast())).toEqual([undefined, broadcast(), undefined]);
    expect(send(1, broadcast())).toEqual([broadcast(), undefined, undefined]);
    expect(send(2, broadcast())).toEqual([tag(broadcast(), 20), undefined, undefined]);
  });
  it("each VLAN learns apart: the same address may be in two", () => {
    const { send } = setUpVlans([10, []], [20, []], [10, []], [20, []]);
    send(0, broadcast());
    send(1, broadcast());
    const toA = broadcast();
    writeMac(toA, 0, A);
    writeMac(toA, 6, B);
    expect(send(2, toA)).toEqual([toA, undefined, undefined, undefined]);
    expect(send(3, toA)).toEqual([undefined, toA, undefined, undefined]);
  });
  it("what comes out is what went in, tag aside, whatever the ports", () => {
    const vid = fc.integer({ min: 0, max: 3 });
    fc.assert(
      fc.property(fc.array(fc.tuple(vid, fc.uniqueArray(fc.integer({ min: 1, max: 3 }))), { minLength: 2, maxLength: 4 }), vid, (rules, tagged) => {
        const { send } = setUpVlans(...rules);
        for (const out of send(0, tagged ? tag(broadcast(), tagged) : broadcast())) {
          if (out) expect(out[12] === 0x81 ? Uint8Array.of(...out.subarray(0, 12), ...out.subarray(16)) : out).toEqual(broadcast());
        }
      }),
    );
  });
});
