import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Hv } from "./hv.ts";
import { nestedGuestMonitor, NESTED_GUEST_OUTPUT } from "./nested-guest.ts";

describe("KVM in the guest: the H extension", () => {
  const hv = new Hv();
  beforeAll(async () => {
    await hv.ok("up", "host");
  });
  afterAll(() => hv.close());

  it("Debian's own kvm module finds the hypervisor extension; the CPU shows it", async () => {
    expect((await hv.ok("exec", "host", "--", "cat", "/proc/cpuinfo"))).toMatch(/^isa\s+: rv64imafdch_\S*zicboz\S*_zba_zbb_/m);
    const { status, stdout } = await hv.sh("host", "modprobe kvm && dmesg | grep kvm");
    expect({ status, stdout }).toMatchObject({ status: 0, stdout: expect.stringContaining("hypervisor extension available") });
    expect(stdout).toContain("using Sv48x4 G-stage page table format");
  });

  for (const engine of ["interpreter", "dynamic"]) {
    it(`a nested guest runs through /dev/kvm on the ${engine} engine: paging, MMIO, SBI, timer, faults, power off`, async () => {
      await hv.ok("set", "host", "--engine", engine);
      await hv.run(["exec", "-i", "host", "--", "sh", "-c", "cat > /tmp/monitor && chmod +x /tmp/monitor"], { input: nestedGuestMonitor() });
      expect(await hv.sh("host", "/tmp/monitor")).toEqual({ status: 0, stdout: `${NESTED_GUEST_OUTPUT}\n`, stderr: "" });
      const together = await hv.sh("host", "for i in 1 2 3; do /tmp/monitor > /tmp/out$i & done; wait; cat /tmp/out1 /tmp/out2 /tmp/out3");
      expect(together).toEqual({ status: 0, stdout: `${NESTED_GUEST_OUTPUT}\n`.repeat(3), stderr: "" });
    });
  }

  it("with --cpu h=off there is none: the module says so; an unknown feature is refused with those there are", async () => {
    await hv.ok("halt", "host");
    await hv.ok("up", "plain", "--cpu", "h=off,mmu=sv39");
    const { status, stdout } = await hv.sh("plain", "grep -c rv64imafdch /proc/cpuinfo; grep mmu /proc/cpuinfo; modprobe kvm 2>&1; dmesg | grep kvm");
    expect({ status, stdout }).toMatchObject({ stdout: expect.stringMatching(/^0\nmmu\s+: sv39\n[^]*hypervisor extension not available/) });
    const refused = await hv.run(["up", "odd", "--cpu", "h=maybe"]);
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toContain('cpu feature "h=maybe"; expected h=on, h=off, mmu=sv39, mmu=sv48 or mmu=sv57');
  });
});
