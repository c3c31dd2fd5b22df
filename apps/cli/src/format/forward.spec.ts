import { describe, expect, it } from "vitest";
import { parseForward } from "./forward.ts";

describe("--forward", () => {
  it("reads ports, where to listen, the protocol, and whether another port will do", () => {
    expect(parseForward("8080:80")).toEqual({ protocol: "tcp", bind: "", hostPort: 8080, guestPort: 80, autoCorrect: false });
    expect(parseForward("0.0.0.0:5353:53/udp,auto")).toEqual({ protocol: "udp", bind: "0.0.0.0", hostPort: 5353, guestPort: 53, autoCorrect: true });
    expect(parseForward("[::1]:0:22")).toMatchObject({ bind: "::1", hostPort: 0, guestPort: 22 });
  });
  it("anything else → an error that shows the form", () => {
    for (const bad of ["", "80", "a:b", "8080:80/sctp", "1:2:3:4", "8080:0", "70000:80", "8080:80,maybe"]) expect(() => parseForward(bad)).toThrow(/--forward/);
  });
});
