import { createHash } from "node:crypto";
import { afterAll, describe, expect, it } from "vitest";
import { Hv } from "./hv.ts";

describe("hv translate, engine static", () => {
  const hv = new Hv();
  afterAll(() => hv.close());

  it("a box translated ahead boots with those regions and computes what any engine computes", async () => {
    const made = await hv.json<{ regions: number; key: string }>("translate", "debian/minimal");
    expect(made.regions).toBeGreaterThan(300);
    expect(await hv.ok("registry", "show")).toContain("polyvisor/translations");
    await hv.ok("up", "ahead", "--engine", "static");
    const sum = createHash("sha256").update(Array.from({ length: 20_000 }, (_, n) => `${n + 1}\n`).join("")).digest("hex");
    expect((await hv.sh("ahead", "seq 1 20000 | sha256sum")).stdout).toBe(`${sum}  -\n`);
    const placed = /ahead-placed +([\d,]+)/.exec(await hv.ok("stats", "ahead"));
    expect(Number(placed?.[1]?.replaceAll(",", ""))).toBeGreaterThan(200);
    await hv.ok("set", "ahead", "--engine", "interpreter");
    await hv.ok("set", "ahead", "--engine", "static");
    expect((await hv.sh("ahead", "seq 1 20000 | sha256sum")).stdout).toBe(`${sum}  -\n`);
  });

  it("what nothing is known of cannot be saved: a machine that did not record", async () => {
    const { status, stderr } = await hv.run(["translate", "--machine", "ahead"]);
    expect(status).not.toBe(0);
    expect(stderr).toContain("engine recording");
  });
});
