import fc from "fast-check";
import type { Frame } from "@polyvisor/contracts/network";
import { MAC_BROADCAST, writeMac } from "@polyvisor/wire";
import { describe, expect, it } from "vitest";
import { L2Switch, MAC_AGE_MS, MAX_ADDRESSES } from "./l2-switch.ts";

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
  it("a guest that invents addresses fills the table and no more; old ones make room", () => {
    const { send, bridge, advance } = setUp(2);
    for (let i = 0; i < MAX_ADDRESSES + 100; i++) send(0, 0x020000000000 + i, B);
    expect(bridge.addresses).toBe(MAX_ADDRESSES);
    advance(MAC_AGE_MS);
    send(0, A, B);
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
