import { decodeFrame, emitEthernet, emitIpv4, emitTcp, emitUdp, ETHERTYPE, IP_PROTOCOL, ipv4Datagram, parseIpv4, parseIpv4Packet, parseTcp, parseUdp } from "@polyvisor/wire";
import { beforeEach, describe, expect, it } from "vitest";
import { MediationChain, RuleError, RuleSet, type MediationPoint, type Rule } from "./index.ts";

const FRAMES: MediationPoint = { service: "network-fabric", plane: "frames", method: "frames", direction: "request" };
const pair = { source: parseIpv4("10.0.2.15")!, destination: parseIpv4("198.51.100.7")! };
const inFrame = (protocol: number, payload: Uint8Array): Uint8Array =>
  emitEthernet({ destination: 0x525400000002, source: 0x525400000001, etherType: ETHERTYPE.IPV4, payload: emitIpv4(ipv4Datagram({ ...pair, protocol, payload })) });
const tcp = (destinationPort: number): Uint8Array =>
  inFrame(IP_PROTOCOL.TCP, emitTcp({ sourcePort: 40_000, destinationPort, sequence: 1, acknowledgment: 0, flags: 2, window: 1000, urgentPointer: 0, options: new Uint8Array(0), payload: new Uint8Array(3) }, pair));
/** An answer "web A 192.0.2.1", TTL 60, to a query for it. */
const dnsAnswer = (): Uint8Array => {
  const name = [3, 0x77, 0x65, 0x62, 0];
  const message = Uint8Array.of(0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, ...name, 0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1);
  return inFrame(IP_PROTOCOL.UDP, emitUdp({ sourcePort: 53, destinationPort: 40_000, payload: message }, pair));
};
const batch = (...frames: Uint8Array[]) => ({ machine: "m", port: "m/net0", credit: 3, linkUp: true, frames: frames.map((data) => ({ data, offload: undefined as unknown })) });

let rules: RuleSet;
let chain: MediationChain;
let reports: string[];
beforeEach(() => {
  reports = [];
  rules = new RuleSet((id, reason) => reports.push(`${id}: ${reason}`));
  chain = new MediationChain(rules);
});
function pass(message: ReturnType<typeof batch>): ReturnType<typeof batch>[] {
  const out: ReturnType<typeof batch>[] = [];
  chain.pass(FRAMES, chain.countersOf(FRAMES, "m"), "m", message, { deliver: (delivered) => void out.push(delivered), deny: () => {}, drop: () => {} });
  return out;
}
const only = (message: ReturnType<typeof batch>): Uint8Array[] => pass(message)[0]!.frames.map(({ data }) => data);
const add = (rule: Partial<Rule>) => rules.add({ plane: "frames", action: "observe", ...rule });

describe("rules on single frames", () => {
  it("deny tcp dport 25: that frame alone is gone, its place counts for credit", () => {
    add({ action: "deny", expression: "frame.tcp.dport == 25" });
    const [kept, mail] = [tcp(80), tcp(25)];
    expect(only(batch(kept, mail, dnsAnswer())).map(({ length }) => length)).toEqual([kept.length, 0, dnsAnswer().length]);
    expect(rules.list()[0]!.hits).toBe(1n);
    expect(pass(batch(kept))).toEqual([batch(kept)]);
  });
  it("a DNS answer is rewritten, and both checksums are right again", () => {
    add({ action: "modify", expression: 'frame.dns.response && frame.dns.name == "web"', assign: { "frame.dns.answers[0].address": '"203.0.113.9"' } });
    const [changed] = only(batch(dnsAnswer()));
    expect(decodeFrame(changed!)!.dns!.answers[0]).toMatchObject({ name: "web", address: "203.0.113.9", ttl: 60 });
    const packet = parseIpv4Packet(changed!.subarray(14))!;
    expect(parseUdp(packet.payload, packet)).toBeDefined(); // verifies
    expect(decodeFrame(dnsAnswer())!.dns!.answers[0]!.address).toBe("192.0.2.1");
  });
  it.each([
    ["frame.ip.dst", '"192.0.2.99"', (frame: Uint8Array) => decodeFrame(frame)!.ip!.dst, "192.0.2.99"],
    ["frame.ip.ttl", "3", (frame: Uint8Array) => decodeFrame(frame)!.ip!.ttl, 3],
    ["frame.tcp.dport", "frame.tcp.dport + 8000", (frame: Uint8Array) => decodeFrame(frame)!.tcp!.dport, 8080],
    ["frame.eth.dst", '"52:54:00:aa:bb:cc"', (frame: Uint8Array) => decodeFrame(frame)!.eth.dst, "52:54:00:aa:bb:cc"],
  ])("%s = %s", (path, value, read, expected) => {
    add({ action: "modify", assign: { [path]: value } });
    const [changed] = only(batch(tcp(80)));
    expect(read(changed!)).toBe(expected);
    const packet = parseIpv4Packet(changed!.subarray(14))!;
    expect(parseTcp(packet.payload, packet)).toBeDefined();
    expect(reports).toEqual([]);
  });
  it("duplicate, corrupt with a seed, observe, delay", () => {
    const double = add({ action: "duplicate", expression: "frame.tcp.dport == 80" });
    expect(only(batch(tcp(80), tcp(81)))).toEqual([tcp(80), tcp(80), tcp(81)]);
    rules.remove(double.id);
    const damage = add({ action: "corrupt", seed: 7n, expression: "frame.tcp.dport == 80" });
    const first = only(batch(tcp(80)))[0]!;
    expect(first.reduce((bits, byte, i) => bits + (byte ^ tcp(80)[i]!).toString(2).replaceAll("0", "").length, 0)).toBe(1);
    rules.remove(damage.id);
    add({ action: "corrupt", seed: 7n, expression: "frame.tcp.dport == 80" });
    expect(only(batch(tcp(80)))[0]).toEqual(first);
    const watch = add({ expression: "has(frame.udp)" });
    pass(batch(tcp(81), dnsAnswer(), dnsAnswer()));
    expect(rules.list().find(({ rule }) => rule.id === watch.id)!.hits).toBe(2n);
    add({ action: "delay", delayMs: 5, expression: "frame.ip.proto == 6" });
    expect(pass(batch(tcp(81)))).toEqual([]);
    expect(pass(batch(dnsAnswer()))).toHaveLength(1);
  });
  it("machine, direction and the message itself are there, too; a string that only says frame. is no frame rule", () => {
    add({ action: "drop", expression: 'machine == "m" && message.credit == 3 && frame.tcp.dport == 80' });
    expect(only(batch(tcp(80)))[0]!.length).toBe(0);
    add({ action: "observe", expression: 'message.port == "frame.x"' });
    pass(batch(tcp(1)));
    expect(reports).toEqual([]);
  });
  it("a field that cannot be set is refused with those that can; a value of the wrong kind is reported and the frame stays", () => {
    expect(() => add({ action: "modify", assign: { "frame.tcp.seq": "1" } })).toThrow(RuleError);
    expect(() => add({ action: "modify", assign: { "frame.tcp.seq": "1" } })).toThrow(/frame\.ip\.dst/);
    add({ action: "modify", assign: { "frame.tcp.dport": "true" } });
    expect(only(batch(tcp(80)))).toEqual([tcp(80)]);
    expect(reports).toHaveLength(1);
  });
  it("garbage frames meet the rules and come out as they went in", () => {
    add({ action: "deny", expression: "frame.tcp.dport == 25 || frame.dns.answers[3].ttl == 1" });
    const garbage = [new Uint8Array(1), new Uint8Array(14), new Uint8Array(60).fill(255), tcp(25).subarray(0, 33)];
    expect(only(batch(...garbage))).toEqual(garbage);
  });
});
