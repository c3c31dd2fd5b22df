import { describe, expect, it } from "vitest";
import { byteCount, choice, defineConfig, describeConfig, integer, parseConfig, path, text, toggle } from "./config.ts";

interface Sample {
  stateDir: string;
  grantPages: number;
  memory: number;
  shared: boolean;
  mode: "fast" | "safe";
}
const SCHEMA = defineConfig<Sample>({
  stateDir: { doc: "where state lives", type: path },
  grantPages: { doc: "pages per grant", type: integer(1, 64), default: 8 },
  memory: { doc: "guest RAM", type: byteCount, default: 0, env: "GUEST_RAM" },
  shared: { doc: "share", type: toggle, default: false },
  mode: { doc: "how", type: choice("fast", "safe"), default: "fast" },
});
const parse = (argv: string[], env: Record<string, string> = {}) => parseConfig(SCHEMA, argv, env);

describe("parseConfig", () => {
  it("takes flags before the environment before defaults", () => {
    const env = { PV_STATE_DIR: "/env", PV_GRANT_PAGES: "9", GUEST_RAM: "256M", PV_SHARED: "1" };
    expect(parse(["--state-dir", "/flag", "--mode=safe"], env)).toEqual({ stateDir: "/flag", grantPages: 9, memory: 256 << 20, shared: true, mode: "safe" });
    expect(parse(["--state-dir=/x", "--no-shared"], env).shared).toBe(false);
    expect(parse(["--state-dir=/x"])).toEqual({ stateDir: "/x", grantPages: 8, memory: 0, shared: false, mode: "fast" });
  });

  it("names everything that is wrong at once", () => {
    expect(() => parse(["--grant-pages", "65", "--mode", "slow"], { GUEST_RAM: "lots", PV_SHARED: "maybe" })).toThrow(
      /--state-dir \(or PV_STATE_DIR\) is missing.*--grant-pages: expected a whole number from 1 to 64, got "65".*GUEST_RAM: expected bytes.*PV_SHARED: expected true or false.*--mode: expected one of fast, safe/,
    );
  });

  it.each([[["--unknown", "1"]], [["stray"]], [["--grant-pages"]]])("refuses %j", (argv) => {
    expect(() => parse(["--state-dir", "/x", ...argv])).toThrow(expect.objectContaining({ condition: "invalid" }));
  });

  it.each([["4096", 4096], ["4k", 4096], ["1GiB", 1 << 30], ["2T", 2 * 1024 ** 4]])("reads %s as %d bytes", (value, bytes) => {
    expect(byteCount.parse(value)).toBe(bytes);
  });

  it.each(["", "-1", "1.5", "0x10", "1e3", "99999999999999999999"])("refuses the whole number %j", (value) => {
    expect(() => integer(0).parse(value)).toThrow("expected a whole number");
  });
});

it("describeConfig lists every option, its variable, meaning and default", () => {
  const help = describeConfig("sample: a service", SCHEMA);
  expect(help.split("\n").length).toBe(8);
  expect(help).toMatch(/--state-dir PATH\s+PV_STATE_DIR\s+where state lives \(required\)/);
  expect(help).toMatch(/--shared\s+PV_SHARED\s+share \(default false\)/);
  expect(describeConfig("x", defineConfig<{ a: string }>({ a: { doc: "d", type: text, default: "" } }))).toContain("default none");
});
