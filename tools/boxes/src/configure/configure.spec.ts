import { describe, expect, it } from "vitest";
import { FileTree } from "../rootfs/file-tree.ts";
import { Accounts } from "./accounts.ts";
import { writeAlternative } from "./alternatives.ts";
import { enableUnit, maskDependency } from "./units.ts";

describe("accounts", () => {
  const accounts = (): Accounts => {
    const all = new Accounts();
    all.readMaster("root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", "root:*:0:\nshadow:*:42:\nnogroup:*:65534:\n");
    return all;
  };
  it("sysusers.d lines get the numbers they ask for, or the next below 999; what exists stays", () => {
    const all = accounts();
    all.readSysusers('# comment\ng kvm -\nu messagebus - "System Message Bus" /nonexistent\nu! fixed 77:nogroup "x" /f /bin/sh\nu root 5 "other"\nm messagebus kvm\n');
    expect(all.users.find((u) => u.name === "messagebus")).toMatchObject({ uid: 998, gid: 998, comment: "System Message Bus", shell: "/usr/sbin/nologin" });
    expect(all.users.find((u) => u.name === "fixed")).toMatchObject({ uid: 77, gid: 65534, home: "/f", shell: "/bin/sh" });
    expect(all.owners.users.get("root")).toBe(0);
    expect(all.groups.find((g) => g.name === "kvm")).toMatchObject({ gid: 999, members: ["messagebus"] });
  });
  it("passwd, shadow, group and gshadow agree, and only root and group shadow read the secrets", () => {
    const tree = new FileTree();
    const all = accounts();
    all.addUser({ name: "debian", uid: 1000, gid: 1000, comment: "", home: "/home/debian", shell: "/bin/bash", password: "$6$x" });
    all.write(tree, 20_000);
    expect(tree.text("/etc/passwd")).toContain("debian:x:1000:1000::/home/debian:/bin/bash\n");
    expect(tree.text("/etc/shadow")).toContain("debian:$6$x:20000:0:99999:7:::\n");
    expect(tree.text("/etc/group")).toContain("debian:x:1000:\n");
    expect(tree.find("/etc/shadow")).toMatchObject({ mode: 0o640, gid: 42 });
  });
  it("an unknown group → says whose", () => {
    expect(() => accounts().addToGroup("debian", "sudo")).toThrow("there is no group sudo for user debian");
  });
});

describe("units", () => {
  const tree = (): FileTree => {
    const all = new FileTree();
    all.file("/usr/lib/systemd/system/a.service", "[Unit]\nAlso=no\n[Install]\nWantedBy=multi-user.target x.target\nAlias=b.service\nAlso=a.socket\n");
    all.file("/usr/lib/systemd/system/a.socket", "[Install]\nRequiredBy=sockets.target\nAlso=a.service\n");
    return all;
  };
  it("enabling makes the links that [Install] asks for, Also= included", () => {
    const all = tree();
    enableUnit(all, "a.service");
    for (const path of ["multi-user.target.wants/a.service", "x.target.wants/a.service", "b.service"]) {
      expect(all.find(`/etc/systemd/system/${path}`)).toMatchObject({ kind: "symlink", target: "/usr/lib/systemd/system/a.service" });
    }
    expect(all.find("/etc/systemd/system/sockets.target.requires/a.socket")).toMatchObject({ kind: "symlink" });
    expect(() => enableUnit(all, "c.service")).toThrow("there is no unit c.service");
  });
  it("a dependency is masked without masking the unit", () => {
    const all = tree();
    maskDependency(all, "multi-user.target", "a.service");
    expect(all.find("/etc/systemd/system/multi-user.target.wants/a.service")).toMatchObject({ target: "/dev/null" });
    expect(all.find("/etc/systemd/system/a.service")).toBeUndefined();
  });
});

describe("alternatives", () => {
  it("the highest priority is linked; the record is what update-alternatives reads", () => {
    const tree = new FileTree();
    const slaves = [{ name: "nawk", link: "/usr/bin/nawk", path: "/usr/bin/mawk" }];
    writeAlternative(tree, { name: "awk", link: "/usr/bin/awk", choices: [{ path: "/usr/bin/mawk", priority: 5 }], slaves });
    expect(tree.find("/usr/bin/awk")).toMatchObject({ target: "/etc/alternatives/awk" });
    expect(tree.find("/etc/alternatives/nawk")).toMatchObject({ target: "/usr/bin/mawk" });
    expect(tree.text("/var/lib/dpkg/alternatives/awk")).toBe("auto\n/usr/bin/awk\nnawk\n/usr/bin/nawk\n\n/usr/bin/mawk\n5\n/usr/bin/mawk\n\n");
  });
});

describe("a file tree", () => {
  it("follows links to directories on the way, not the last one; loops and files on the way are errors", () => {
    const tree = new FileTree();
    tree.symlink("/bin", "usr/bin");
    tree.file("/bin/sh", "x");
    expect(tree.find("/usr/bin/sh")).toMatchObject({ kind: "file" });
    expect(tree.find("/bin")).toMatchObject({ kind: "symlink" });
    tree.symlink("/a", "/b");
    tree.symlink("/b", "a");
    expect(() => tree.find("/a/x")).toThrow(/too many symbolic links/);
    expect(() => tree.file("/usr/bin/sh/x", "")).toThrow(/sh is a file, not a directory/);
    expect(() => tree.file("/usr", "")).toThrow(/a directory is there already/);
  });
});
