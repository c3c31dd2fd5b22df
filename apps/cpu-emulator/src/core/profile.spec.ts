import { describe, expect, it } from "vitest";
import { PC, PRIVILEGE } from "./hart-state.ts";
import { Profile, spotsOf } from "./profile.ts";
import { testHarts } from "../testing/test-hart.ts";

describe("the profile of a hart", () => {
  const profileOf = () => {
    const { cells } = testHarts(1).harts[0]!;
    const profile = new Profile(cells);
    const at = (pc: bigint, privilege: number, times = 1): void => {
      cells.u64[PC >> 3] = pc;
      cells.i32[PRIVILEGE >> 2] = privilege;
      for (let n = 0; n < times; n++) profile.sample();
    };
    return { profile, at };
  };

  it("counts 64-byte spots by privilege, kernel addresses included, hottest first", () => {
    const { profile, at } = profileOf();
    at(0xffff_ffff_8000_0004n, 1, 2);
    at(0xffff_ffff_8000_003en, 1);
    at(0x3f_1234_5678n, 0, 2);
    at(0x8000_0000n, 3);
    expect(spotsOf(profile.entries())).toEqual([
      { address: 0xffff_ffff_8000_0000n, privilege: 1, samples: 3 },
      { address: 0x3f_1234_5640n, privilege: 0, samples: 2 },
      { address: 0x8000_0000n, privilege: 3, samples: 1 },
    ]);
  });

  it("stays bounded, and keeps what is hot", () => {
    const { profile, at } = profileOf();
    at(0x1000n, 3, 5000);
    for (let n = 0n; n < 100_000n; n++) at(0x10_0000n + n * 64n, 0);
    expect(profile.entries().length).toBeLessThan(9000);
    expect(spotsOf(profile.entries())[0]).toMatchObject({ address: 0x1000n });
  });
});
