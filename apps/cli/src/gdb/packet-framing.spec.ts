import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { INTERRUPT, PacketFraming } from "./packet-framing.ts";

function side() {
  const packets: Uint8Array[] = [];
  const written: Uint8Array[] = [];
  const broken: string[] = [];
  const framing = new PacketFraming({
    packet: (data) => void packets.push(data),
    write: (bytes) => void written.push(bytes),
    broken: (why) => void broken.push(why),
  });
  const text = () => Buffer.concat(written).toString("latin1");
  return { framing, packets, broken, text, feed: (bytes: string) => framing.receive(Buffer.from(bytes, "latin1")) };
}

describe("GDB packet frames", () => {
  it("a packet with the right sum is delivered and acknowledged, one with another is asked for again (GDB E.1)", () => {
    const { feed, packets, text } = side();
    feed("+$g#67");
    feed("$m80000000,4#00$qC#b4");
    expect(packets.map(String)).toEqual(["103", "113,67"]);
    expect(text()).toBe("+-+");
  });

  it("a negative acknowledgement repeats the last packet, until there are none any more", () => {
    const { framing, feed, text } = side();
    framing.send(Buffer.from("OK"));
    feed("-");
    expect(text()).toBe("$OK#9a$OK#9a");
    framing.stopAcknowledging();
    feed("-$g#00");
    expect(text()).toBe("$OK#9a$OK#9a");
  });

  it("any bytes sent arrive as they were, in pieces of any size", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 1, max: 50 }), (data, size) => {
        const sender = side();
        sender.framing.send(data);
        const receiver = side();
        const bytes = Buffer.from(sender.text(), "latin1");
        for (let at = 0; at < bytes.length; at += size) receiver.framing.receive(bytes.subarray(at, at + size));
        expect(receiver.packets).toEqual([data]);
      }),
    );
  });

  it("an interrupt counts between packets only; a packet without end is refused", () => {
    const { feed, packets, broken } = side();
    feed("\x03$X1,1:\x03#23"); // as data
    expect(packets).toEqual([Uint8Array.of(INTERRUPT), Uint8Array.from(Buffer.from("X1,1:\x03"))]);
    feed(`$${"a".repeat(0x1_0001)}`);
    expect(broken).toHaveLength(1);
    feed("$g#67");
    expect(packets).toHaveLength(3);
  });

  it("random bytes never throw", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (data) => side().framing.receive(data)));
  });
});
