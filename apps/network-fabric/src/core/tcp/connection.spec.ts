import fc from "fast-check";
import { emitTcpOptions, parseTcpOptions, TCP_FLAG, type TcpOptions, type TcpSegment } from "@polyvisor/wire";
import { describe, expect, it } from "vitest";
import { Endpoint, Link, LIMITS } from "../../testing/tcp-link.ts";
import { TcpConnection } from "./connection.ts";

const { SYN, ACK, FIN, RST } = TCP_FLAG;
const perfect = () => [0.1];
const pattern = (length: number, seed = 1): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8) * seed) & 255);

/** The gateway's end, with the guest played segment by segment. */
function scripted({ options = {}, limits = LIMITS, initial = 1000, guest = 5000 }: { options?: TcpOptions; limits?: typeof LIMITS; initial?: number; guest?: number } = {}) {
  const end = new Endpoint(80, 40_000);
  let now = 0;
  const segment = (fields: Partial<TcpSegment>): TcpSegment => ({
    ...{ sourcePort: 40_000, destinationPort: 80, sequence: guest + 1, acknowledgment: initial + 1, flags: ACK, window: 65_535, urgentPointer: 0 },
    ...{ options: new Uint8Array(0), payload: new Uint8Array(0) },
    ...fields,
  });
  const syn = segment({ sequence: guest, acknowledgment: 0, flags: SYN, options: emitTcpOptions(options) });
  end.connection = TcpConnection.accept(end, limits, initial, syn, 0);
  const take = () => end.sent.splice(0);
  /** Sends segments, then answers what came back. */
  const send = (...list: Partial<TcpSegment>[]) => {
    for (const fields of list) end.connection.segment(segment(fields), now);
    end.connection.flush(now);
    return take();
  };
  const advance = (ms: number) => {
    const stop = now + ms;
    while (end.connection.deadline <= stop) {
      now = Math.max(now, end.connection.deadline);
      end.connection.timer(now);
    }
    now = stop;
    return take();
  };
  const write = (bytes: Uint8Array) => {
    end.connection.write(bytes);
    end.connection.flush(now);
    return take();
  };
  const finish = () => {
    end.connection.finish();
    end.connection.flush(now);
    return take();
  };
  const [synAck] = take();
  return { end, connection: end.connection, synAck: synAck!, send, advance, write, finish, guest, initial };
}
const established = (setup: Parameters<typeof scripted>[0] = {}) => {
  const it = scripted(setup);
  it.send({});
  return it;
};

describe("handshake", () => {
  it("options of the answer are those that were offered (RFC 7323, 2.2 and 3.2; RFC 2018, 2), MSS always", () => {
    expect(parseTcpOptions(scripted().synAck.options)).toEqual({ maximumSegmentSize: 1460 });
    const all = { maximumSegmentSize: 1460, windowScale: 7, sackPermitted: true as const, timestamps: { value: 9, echo: 0 } };
    const answer = parseTcpOptions(scripted({ options: all }).synAck.options)!;
    expect(Object.keys(answer).toSorted()).toEqual(["maximumSegmentSize", "sackPermitted", "timestamps", "windowScale"]);
    expect(answer.timestamps!.echo).toBe(9);
  });
  it("a SYN-ACK that is lost comes again after 1, 2, 4 s …, and is given up (RFC 6298, 2.1 and 5.5)", () => {
    const { advance, end } = scripted();
    expect(advance(999).length).toBe(0);
    expect(advance(1).map(({ flags }) => flags)).toEqual([SYN | ACK]);
    expect(advance(2000).length).toBe(1);
    advance(200_000);
    expect(end.heard).toEqual(["timeout", "closed"]);
  });
  it("no MSS → segments of 536; a larger one than our own MTU → ours (RFC 9293, 3.7.1)", () => {
    expect(established().write(pattern(3000)).map(({ payload }) => payload.length)).toEqual([536, 536, 536, 536, 536, 320]);
    const large = established({ options: { maximumSegmentSize: 9000 } });
    expect(large.write(pattern(3000)).map(({ payload }) => payload.length)).toEqual([1460, 1460, 80]);
  });
  it("a reset instead of the last segment → refused; an ACK of something else → reset with its number", () => {
    const { send, end } = scripted();
    send({ flags: RST });
    expect(end.heard).toEqual(["refused", "closed"]);
    expect(scripted().send({ acknowledgment: 77 })).toMatchObject([{ flags: RST, sequence: 77 }]);
  });
  it("opened by us: SYN, SYN-ACK, ACK; a reset → refused; nobody → timeout after five more tries", () => {
    const end = new Endpoint(80, 40_000);
    const connection = TcpConnection.open(end, LIMITS, 10, 0);
    expect(end.sent.splice(0)).toMatchObject([{ flags: SYN, sequence: 10, acknowledgment: 0 }]);
    const synAck: TcpSegment = { sourcePort: 40_000, destinationPort: 80, sequence: 99, acknowledgment: 11, flags: SYN | ACK, window: 1000, urgentPointer: 0, options: new Uint8Array(0), payload: new Uint8Array(0) };
    connection.segment(synAck, 1);
    expect(end.sent.splice(0)).toMatchObject([{ flags: ACK, sequence: 11, acknowledgment: 100 }]);
    expect(end.heard).toEqual(["established"]);
    const other = new Endpoint(80, 40_000);
    TcpConnection.open(other, LIMITS, 10, 0).segment({ ...synAck, flags: RST | ACK }, 1);
    expect(other.heard).toEqual(["refused", "closed"]);
    const silent = new Endpoint(80, 40_000);
    const third = TcpConnection.open(silent, LIMITS, 10, 0);
    while (third.deadline < Infinity) third.timer(third.deadline);
    expect(silent.sent.filter(({ flags }) => flags === SYN).length).toBe(6);
    expect(silent.heard).toContain("timeout");
  });
});

describe("data to the guest", () => {
  it("no more than its window; the rest when it opens (RFC 9293, 3.8.6)", () => {
    const { write, send, initial } = established({ options: { maximumSegmentSize: 1000 } });
    send({ window: 2500 });
    expect(write(pattern(5000)).map(({ payload }) => payload.length)).toEqual([1000, 1000]);
    const more = send({ acknowledgment: initial + 2001, window: 2500 });
    expect(more.reduce((sum, { payload }) => sum + payload.length, 0)).toBe(2000);
  });
  it("a window of zero → probes that back off and never end while it answers, and the data once it opens", () => {
    const { write, send, advance, initial, connection } = established();
    send({ window: 0 });
    expect(write(pattern(100))).toEqual([]);
    const first = advance(2000);
    expect(first.length).toBeGreaterThan(0);
    expect(first.every(({ sequence, payload }) => sequence === initial && payload.length === 0)).toBe(true);
    for (let minute = 0; minute < 30; minute++) {
      expect(advance(60_000).length).toBeGreaterThan(0);
      send({ window: 0 });
    }
    expect(connection.state).toBe("ESTABLISHED");
    expect(send({ window: 1000 })).toMatchObject([{ sequence: initial + 1, payload: pattern(100) }]);
  });
  it("three duplicate acknowledgments → the first segment again at once (RFC 5681, 3.2)", () => {
    const { write, send, initial } = established({ options: { maximumSegmentSize: 1000 } });
    write(pattern(8000));
    const once = { acknowledgment: initial + 1 };
    expect(send(once, once)).toEqual([]);
    expect(send(once)[0]).toMatchObject({ sequence: initial + 1, payload: pattern(8000).subarray(0, 1000) });
  });
  it("SACK: only what is missing comes again (RFC 6675)", () => {
    const { write, send, initial } = established({ options: { maximumSegmentSize: 1000, sackPermitted: true } });
    write(pattern(8000));
    const blocks = { options: emitTcpOptions({ sackBlocks: [{ left: initial + 3001, right: initial + 8001 }, { left: initial + 1001, right: initial + 2001 }] }) };
    const again = send({ acknowledgment: initial + 1, ...blocks });
    expect(again.map(({ sequence, payload }) => [sequence - initial - 1, payload.length])).toEqual([
      [0, 1000],
      [2000, 1000],
    ]);
  });
  it("no answer → again after the timeout, which doubles; after twelve times the connection is dead", () => {
    const { write, advance, end } = established();
    write(pattern(10));
    const times: number[] = [];
    for (let ms = 0; ms < 20_000; ms += 100) if (advance(100).length > 0) times.push(ms);
    expect(times.length).toBeLessThan(8);
    advance(3_600_000);
    expect(end.heard).toContain("timeout");
    expect(end.heard).toContain("closed");
  });
  it("an acknowledgment of what was never sent → a challenge, at most ten in a second (RFC 5961, 5 and 7)", () => {
    const { send, initial } = established();
    let answers = 0;
    for (let i = 0; i < 50; i++) answers += send({ acknowledgment: initial + 5000 }).length;
    expect(answers).toBe(10);
  });
});

describe("data from the guest", () => {
  it("in order → handed on, one acknowledgment for the batch; out of order → at once, with SACK if agreed", () => {
    const { send, end, guest } = established({ options: { sackPermitted: true } });
    const [one, two, three] = [0, 1, 2].map((i) => ({ sequence: guest + 1 + i * 100, payload: pattern(300).subarray(i * 100, i * 100 + 100) }));
    expect(send(one!)).toMatchObject([{ acknowledgment: guest + 101 }]);
    const [gap] = send(three!);
    expect(gap!.acknowledgment).toBe(guest + 101);
    expect(parseTcpOptions(gap!.options)!.sackBlocks).toEqual([{ left: guest + 201, right: guest + 301 }]);
    expect(send(two!)).toMatchObject([{ acknowledgment: guest + 301 }]);
    expect(Buffer.concat(end.got)).toEqual(Buffer.from(pattern(300)));
  });
  it("nobody reads → the window closes and never moves back; reading → it is told, in a step worth it", () => {
    const limits = { ...LIMITS, receiveBuffer: 10_000 };
    const { send, end, guest, connection } = established({ options: { maximumSegmentSize: 1000 }, limits });
    end.capacity = 10_000;
    end.reads = false;
    let edge = 0;
    for (let i = 0; i < 20; i++) {
      const sequence = guest + 1 + end.gotBytes;
      for (const { acknowledgment, window } of send({ sequence, payload: pattern(1000) })) {
        expect(acknowledgment + window).toBeGreaterThanOrEqual(edge);
        edge = acknowledgment + window;
      }
    }
    expect(end.gotBytes).toBe(10_000);
    end.unread = 9500;
    connection.roomGrown(0);
    expect(end.sent.splice(0)).toEqual([]); // 500 bytes are not worth a segment
    end.unread = 0;
    connection.roomGrown(0);
    expect(end.sent.splice(0)).toMatchObject([{ window: 10_000 }]);
  });
  it("a keepalive (one before the next number) → answered (RFC 9293, 3.8.4)", () => {
    const { send, guest } = established();
    expect(send({ sequence: guest })).toMatchObject([{ flags: ACK, acknowledgment: guest + 1 }]);
    expect(send({ sequence: guest, payload: Uint8Array.of(0) })).toMatchObject([{ flags: ACK, acknowledgment: guest + 1 }]);
  });
  it("old timestamps are not let in (PAWS: RFC 7323, 5.3)", () => {
    const { send, end, guest } = established({ options: { timestamps: { value: 1000, echo: 0 } } });
    const at = (value: number) => ({ payload: pattern(10), sequence: guest + 1, options: Uint8Array.of(1, 1, ...emitTcpOptions({ timestamps: { value, echo: 1 } }).subarray(0, 10)) });
    expect(send(at(900)).length).toBe(1);
    expect(end.gotBytes).toBe(0);
    send(at(1001));
    expect(end.gotBytes).toBe(10);
  });
});

describe("ending", () => {
  it("the guest first: FIN → CLOSE-WAIT, our data still goes, our FIN → LAST-ACK → closed (figure 12)", () => {
    const { send, write, finish, end, connection, guest, initial } = established();
    expect(send({ flags: FIN | ACK })).toMatchObject([{ acknowledgment: guest + 2 }]);
    expect([connection.state, end.heard.at(-1)]).toEqual(["CLOSE-WAIT", "fin"]);
    expect(write(pattern(5))).toMatchObject([{ payload: pattern(5) }]);
    expect(finish()).toMatchObject([{ flags: FIN | ACK, sequence: initial + 6 }]);
    expect(connection.state).toBe("LAST-ACK");
    send({ sequence: guest + 2, acknowledgment: initial + 7 });
    expect([connection.state, end.heard.at(-1)]).toEqual(["CLOSED", "closed"]);
  });
  it("we first: FIN-WAIT-1 → FIN-WAIT-2, the guest's data still comes, its FIN → TIME-WAIT for 60 s, FIN again → acknowledged again", () => {
    const { send, finish, advance, end, connection, guest, initial } = established();
    finish();
    expect(connection.state).toBe("FIN-WAIT-1");
    send({ acknowledgment: initial + 2 });
    expect(connection.state).toBe("FIN-WAIT-2");
    send({ acknowledgment: initial + 2, payload: pattern(9) });
    expect(end.gotBytes).toBe(9);
    const fin = { sequence: guest + 10, acknowledgment: initial + 2, flags: FIN | ACK };
    send(fin);
    expect(connection.state).toBe("TIME-WAIT");
    expect(send(fin)).toMatchObject([{ acknowledgment: guest + 11 }]);
    advance(60_001);
    expect(end.heard.at(-1)).toBe("closed");
  });
  it("both at once: CLOSING → TIME-WAIT (figure 13)", () => {
    const { send, finish, connection, guest, initial } = established();
    finish();
    send({ flags: FIN | ACK });
    expect(connection.state).toBe("CLOSING");
    send({ sequence: guest + 2, acknowledgment: initial + 2 });
    expect(connection.state).toBe("TIME-WAIT");
  });
  it("a new SYN in TIME-WAIT: beyond the old numbers → may replace it; an old one → may not", () => {
    const { send, finish, connection, guest, initial } = established();
    send({ flags: FIN | ACK });
    const wait = established();
    wait.finish();
    wait.send({ flags: FIN | ACK, acknowledgment: initial + 2 });
    const syn = (sequence: number): TcpSegment => ({ ...wait.synAck, flags: SYN, sequence, options: new Uint8Array(0) });
    expect([guest + 1000, guest - 1000].map((sequence) => wait.connection.replaceableBy(syn(sequence)))).toEqual([true, false]);
    finish();
    expect(connection.replaceableBy(syn(guest + 1000))).toBe(false); // not over yet
  });
  it("a reset at exactly the next number → reset; elsewhere in the window → challenged; outside → ignored (RFC 5961, 3.2)", () => {
    const { send, end, guest } = established();
    expect(send({ flags: RST, sequence: guest + 50 })).toMatchObject([{ flags: ACK }]);
    expect(send({ flags: RST, sequence: guest - 50 })).toEqual([]);
    expect(end.heard).toEqual(["established"]);
    send({ flags: RST });
    expect(end.heard).toEqual(["established", "reset", "closed"]);
  });
  it("abort → a reset that the guest must accept", () => {
    const { write, connection, end, initial } = established();
    write(pattern(10));
    connection.abort();
    expect(end.sent.splice(0)).toMatchObject([{ flags: RST | ACK, sequence: initial + 11 }]);
    expect(end.heard.at(-1)).toBe("closed");
  });
  it("a SYN inside a connection → challenged (RFC 5961, 4.2)", () => {
    const { send, connection } = established();
    expect(send({ flags: SYN })).toMatchObject([{ flags: ACK }]);
    expect(connection.state).toBe("ESTABLISHED");
  });
});

describe("two ends over a link", () => {
  it("bytes arrive whole and in order, whatever the link loses, delays and doubles; both ends close (sequence numbers wrap)", () => {
    const property = fc.property(
      fc.record({ seed: fc.nat(), loss: fc.constantFrom(0, 0.01, 0.1, 0.3), double: fc.constantFrom(0, 0.1), jitter: fc.constantFrom(0, 0.5, 20) }),
      fc.record({ up: fc.nat(300_000), down: fc.nat(300_000), stalls: fc.boolean() }),
      ({ seed, loss, double, jitter }, { up, down, stalls }) => {
        let state = (seed * 2 + 1) >>> 0;
        const random = () => {
          state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
          return state / 2 ** 32;
        };
        const delay = () => 0.2 + random() * jitter;
        const link = new Link(() => (random() < loss ? [] : random() < double ? [delay(), delay()] : [delay()]));
        const { a, b } = link;
        const [upward, downward] = [pattern(up, 3), pattern(down, 5)];
        link.run(1e7, () => a.heard.includes("established") && b.heard.includes("established"));
        if (a.heard.includes("timeout") || b.heard.includes("timeout")) return; // six lost SYNs in a row: as it should be
        if (stalls) b.reads = false;
        a.connection.write(upward);
        a.connection.finish();
        b.connection.write(downward);
        b.connection.finish();
        for (let i = 0; i < 400 && (a.gotBytes < down || b.gotBytes < up); i++) {
          link.run(link.now + 200_000, () => (b.unread > 0 && b.room() === 0) || (a.gotBytes >= down && b.gotBytes >= up));
          b.unread = 0;
          b.connection.roomGrown(link.now);
        }
        expect(Buffer.concat(b.got).equals(upward)).toBe(true);
        expect(Buffer.concat(a.got).equals(downward)).toBe(true);
        b.reads = true;
        link.run(link.now + 1e6, () => a.heard.includes("closed") && b.heard.includes("closed"));
        // The last acknowledgment may be lost until nobody is left to repeat it (RFC 9293, 3.6.1): then one end gives up.
        expect([a.heard.at(-1), b.heard.at(-1)]).toEqual(["closed", "closed"]);
        expect([a.heard.includes("fin"), b.heard.includes("fin")]).toEqual([true, true]);
      },
    );
    fc.assert(property, { numRuns: 40 });
  });
  it("4 MB over a link that loses 3 % each way takes less than 2 s of its time, with SACK", () => {
    let state = 12_345;
    const random = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
    const link = new Link(() => (random() < 0.03 ? [] : [0.1]), { limits: { ...LIMITS, receiveBuffer: 1 << 20 } });
    link.b.capacity = 1 << 20;
    link.run(1e6, () => link.b.heard.includes("established"));
    const start = link.now;
    link.a.connection.write(pattern(4_000_000));
    link.run(1e6, () => link.b.gotBytes === 4_000_000);
    expect(link.b.gotBytes).toBe(4_000_000);
    expect(link.now - start).toBeLessThan(2000);
  });
  it("without loss nothing is sent twice", () => {
    const link = new Link(perfect);
    link.run(10, () => link.b.heard.includes("established"));
    link.a.connection.write(pattern(1_000_000));
    link.run(1e5, () => link.b.gotBytes === 1_000_000);
    expect(link.a.connection.retransmitted).toBe(0);
  });
});

describe("delayed acknowledgments (RFC 9293, 3.8.6.3)", () => {
  const delayed = () => established({ limits: { ...LIMITS, acknowledgmentDelayMs: 2 } });
  it("less than a segment waits 2 ms for data that takes the acknowledgment along", () => {
    const { send, write, advance } = delayed();
    expect(send({ payload: pattern(10) })).toEqual([]);
    expect(write(pattern(5))).toMatchObject([{ acknowledgment: 5011, payload: pattern(5) }]);
    expect(advance(100)).toEqual([]);
    expect(send({ sequence: 5011, payload: pattern(10) })).toEqual([]);
    expect(advance(1.9)).toEqual([]);
    expect(advance(0.1)).toMatchObject([{ acknowledgment: 5021, payload: new Uint8Array(0) }]);
  });
  it("a whole segment, an end, and what is out of order are answered at once", () => {
    expect(delayed().send({ payload: pattern(400) }, { sequence: 5401, payload: pattern(200) }).length).toBe(1); // 536 without an MSS option
    expect(delayed().send({ payload: pattern(10), flags: ACK | FIN })).toMatchObject([{ acknowledgment: 5012 }]);
    expect(delayed().send({ sequence: 5101, payload: pattern(10) })).toMatchObject([{ acknowledgment: 5001 }]);
  });
});
