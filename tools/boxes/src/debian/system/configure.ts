/**
 * What the packages' maintainer scripts would do on a first installation, done to the tree (README.md, "debian/13: what is not
 * run"). Nothing of the guest's is executed: the same packages give the same tree on every machine.
 */
import { Accounts } from "../../configure/accounts.ts";
import { writeAlternative } from "../../configure/alternatives.ts";
import { enableUnit, maskDependency, maskUnit } from "../../configure/units.ts";
import type { FileTree } from "../../rootfs/file-tree.ts";
import { PATH_EXCLUDES, PATH_INCLUDES } from "./package-set.ts";
import { guestText, installGuestFiles } from "./guest-files.ts";

/** The account that `hv ssh` enters; sudo without a password. The password, for the serial console only, is the name. */
export const USER = "debian";
/** `openssl passwd -6 -salt polyvisor debian`: crypt(5), so that every build has the same. */
const USER_PASSWORD = "$6$polyvisor$6c5gUdkxVsI4ako/XTL4p2n/Xa2ZEsQw9ponoyKw5VhAKHSTsF5v0c3j9EHUIqt2sFhth.6tSprwbcmR0ne94.";

/** Before packages are unpacked: owners in their archives are names. */
export function systemAccounts(passwdMaster: string, groupMaster: string): Accounts {
  const accounts = new Accounts();
  accounts.readMaster(passwdMaster, groupMaster);
  return accounts;
}

export interface SystemOptions {
  readonly mirrorUri: string;
  readonly suite: string;
  readonly time: number;
  /** Units that the recipe's own packages want enabled, and groups that their scripts make, the user in them. */
  readonly units: readonly string[];
  readonly userGroups: readonly string[];
}

export function configureSystem(tree: FileTree, accounts: Accounts, options: SystemOptions): void {
  baseFiles(tree);
  users(tree, accounts, options);
  alternatives(tree);
  pam(tree);
  certificates(tree);
  apt(tree, options);
  ssh(tree);
  installGuestFiles(tree);
  units(tree, options);
}

/** base-files, base-passwd, netbase, libc-bin, debianutils, ucf, kmod: postinst. */
function baseFiles(tree: FileTree): void {
  const copy = (from: string, to: string): void => {
    const node = tree.find(from);
    if (node?.kind !== "file") throw new Error(`${from} is not in the packages; the recipe (configure.ts) no longer fits them`);
    tree.file(to, node.data);
  };
  copy("/usr/share/base-files/dot.profile", "/root/.profile");
  copy("/usr/share/base-files/dot.bashrc", "/root/.bashrc");
  copy("/usr/share/base-files/profile", "/etc/profile");
  copy("/usr/share/debianutils/shells", "/etc/shells");
  tree.file("/etc/shells", `${tree.text("/etc/shells")}/bin/bash\n/usr/bin/bash\n/bin/dash\n/usr/bin/dash\n/bin/rbash\n/usr/bin/rbash\n`);
  tree.symlink("/etc/dpkg/origins/default", "debian");
  for (const path of ["/mnt", "/srv", "/opt", "/etc/opt", "/var/opt", "/media", "/usr/local", "/etc/ssh", "/var/lib/dbus", "/var/lib/ucf"]) tree.directory(path);
  for (const path of ["share", "share/man", "bin", "games", "lib", "libexec", "include", "sbin", "src", "etc"]) tree.directory(`/usr/local/${path}`);
  tree.symlink("/usr/local/man", "share/man");
  tree.directory("/var/mail", { mode: 0o2775, gid: 8 });
  tree.symlink("/var/spool/mail", "../mail");
  for (const [path, target] of [["/var/run", "/run"], ["/var/lock", "/run/lock"]] as const) {
    tree.remove(path);
    tree.symlink(path, target);
  }
  const utmp = 43;
  tree.file("/var/log/wtmp", "", { mode: 0o664, gid: utmp });
  tree.file("/var/log/btmp", "", { mode: 0o660, gid: utmp });
  tree.file("/var/log/lastlog", "", { mode: 0o664, gid: utmp });
  for (const path of ["/etc/subuid", "/etc/subgid", "/etc/environment", "/etc/hosts.allow", "/etc/hosts.deny", "/etc/modules", "/var/lib/ucf/hashfile", "/var/lib/ucf/registry"]) tree.file(path, "");
  tree.file("/etc/security/opasswd", "", { mode: 0o600 });
  tree.file("/etc/hosts", "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n");
  tree.file("/etc/networks", "default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n");
  // The guest's own name is found without a line in /etc/hosts (libnss-myhostname: preinst and postinst).
  tree.file("/etc/nsswitch.conf", (tree.text("/usr/share/libc-bin/nsswitch.conf") ?? "").replace(/^hosts:.*$/m, "hosts:          files myhostname dns"));
  tree.file("/etc/fstab", "# The root filesystem is mounted by the initial RAM disk, and grown to its disk by hv-growfs.service.\n");
  // Empty: each machine makes its own at its first boot (machine-id(5)).
  tree.file("/etc/machine-id", "", { mode: 0o444 });
  tree.symlink("/var/lib/dbus/machine-id", "/etc/machine-id");
}

function users(tree: FileTree, accounts: Accounts, { time, userGroups }: SystemOptions): void {
  const folder = tree.find("/usr/lib/sysusers.d");
  if (folder?.kind === "directory") {
    for (const name of [...folder.entries.keys()].filter((each) => each.endsWith(".conf")).sort()) accounts.readSysusers(tree.text(`/usr/lib/sysusers.d/${name}`) ?? "");
  }
  accounts.readSysusers("g _ssh -\n"); // openssh-client's postinst
  accounts.addUser({ name: USER, uid: 1000, gid: 1000, comment: "Debian", home: `/home/${USER}`, shell: "/bin/bash", password: USER_PASSWORD });
  for (const group of userGroups) accounts.readSysusers(`g ${group} -\n`);
  for (const group of ["adm", "sudo", "users", "dialout", ...userGroups]) accounts.addToGroup(USER, group);
  accounts.write(tree, Math.floor(time / 86_400));
  const { groups } = accounts.owners;
  const own = { uid: 1000, gid: 1000 };
  tree.directory(`/home/${USER}`, { mode: 0o700, ...own });
  for (const name of [".profile", ".bashrc", ".bash_logout"]) tree.file(`/home/${USER}/${name}`, tree.text(`/etc/skel/${name}`) ?? "", own);
  tree.directory(`/home/${USER}/.ssh`, { mode: 0o700, ...own });
  tree.file(`/etc/sudoers.d/${USER}`, `${USER} ALL=(ALL) NOPASSWD:ALL\n`, { mode: 0o440 });
  tree.change("/etc/sudoers", { mode: 0o440 });
  // dpkg-statoverride of openssh-client and dbus.
  tree.change("/usr/bin/ssh-agent", { mode: 0o2755, gid: groups.get("_ssh") ?? 0 });
  tree.change("/usr/lib/dbus-1.0/dbus-daemon-launch-helper", { mode: 0o4754, gid: groups.get("messagebus") ?? 0 });
  tree.file("/var/lib/dpkg/statoverride", "root messagebus 4754 /usr/lib/dbus-1.0/dbus-daemon-launch-helper\n");
}

/** Those whose programs other programs call; manual pages are not on this disk. */
function alternatives(tree: FileTree): void {
  const one = (link: string, path: string, priority: number, slaves: { name: string; link: string; path: string }[] = []): void => {
    const name = link.slice(link.lastIndexOf("/") + 1);
    if (tree.find(path)) writeAlternative(tree, { name, link, choices: [{ path, priority }], slaves });
  };
  one("/usr/bin/awk", "/usr/bin/mawk", 5, [{ name: "nawk", link: "/usr/bin/nawk", path: "/usr/bin/mawk" }]);
  one("/usr/bin/which", "/usr/bin/which.debianutils", 0);
  one("/usr/sbin/rmt", "/usr/sbin/rmt-tar", 50);
  one("/usr/bin/editor", "/bin/nano", 40);
  one("/usr/bin/pico", "/bin/nano", 10);
  // docker.io's and iptables' (the nft kind, as Debian prefers).
  for (const family of ["iptables", "ip6tables"]) {
    const slaves = ["restore", "save"].map((kind) => ({ name: `${family}-${kind}`, link: `/usr/sbin/${family}-${kind}`, path: `/usr/sbin/${family}-nft-${kind}` }));
    one(`/usr/sbin/${family}`, `/usr/sbin/${family}-nft`, 20, slaves);
  }
  writeAlternative(tree, { name: "pager", link: "/usr/bin/pager", choices: [{ path: "/usr/bin/less", priority: 77 }, { path: "/bin/more", priority: 50 }] });
}

/** pam-auth-update with the profile "unix" alone (/usr/share/pam-configs/unix). */
function pam(tree: FileTree): void {
  const lines: Readonly<Record<string, string>> = {
    auth_primary: "auth\t[success=1 default=ignore]\tpam_unix.so nullok",
    account_primary: "account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so",
    password_primary: "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt",
    session_primary: "session\t[default=1]\t\t\tpam_permit.so",
    session_additional: "session\trequired\tpam_unix.so",
    session_nonint_primary: "session\t[default=1]\t\t\tpam_permit.so",
    session_nonint_additional: "session\trequired\tpam_unix.so",
  };
  for (const name of ["common-auth", "common-account", "common-password", "common-session", "common-session-noninteractive"]) {
    const template = tree.text(`/usr/share/pam/${name}`);
    if (template === undefined) throw new Error(`/usr/share/pam/${name} is not in the packages; the recipe (configure.ts) no longer fits them`);
    tree.file(`/etc/pam.d/${name}`, template.replaceAll(/^\$(\w+)$/gm, (_all, variable: string) => lines[variable] ?? ""));
  }
}

/** update-ca-certificates: one bundle of all; the links by hash, which OpenSSL's -CApath wants, are left to the guest. */
function certificates(tree: FileTree): void {
  const folder = tree.find("/usr/share/ca-certificates/mozilla");
  if (folder?.kind !== "directory") return;
  const names = [...folder.entries.keys()].filter((name) => name.endsWith(".crt")).sort();
  tree.file("/etc/ca-certificates.conf", names.map((name) => `mozilla/${name}\n`).join(""));
  tree.file("/etc/ssl/certs/ca-certificates.crt", names.map((name) => tree.text(`/usr/share/ca-certificates/mozilla/${name}`)).join(""));
  tree.directory("/usr/local/share/ca-certificates");
}

function apt(tree: FileTree, { mirrorUri, suite }: { mirrorUri: string; suite: string }): void {
  const keyring = "/usr/share/keyrings/debian-archive-keyring.pgp";
  tree.file(
    "/etc/apt/sources.list.d/debian.sources",
    `Types: deb\nURIs: ${mirrorUri}\nSuites: ${suite} ${suite}-updates\nComponents: main\nSigned-By: ${tree.find(keyring) ? keyring : keyring.replace(/pgp$/, "gpg")}\n`,
  );
  // Descriptions in other languages are megabytes of lists for every `apt update`.
  tree.file("/etc/apt/apt.conf.d/90hv", 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\n');
  tree.file("/etc/dpkg/dpkg.cfg.d/hv", [...PATH_EXCLUDES.map((p) => `path-exclude=${p}`), ...PATH_INCLUDES.map((p) => `path-include=${p}`)].map((line) => `${line}\n`).join(""));
}

function ssh(tree: FileTree): void {
  const config = tree.find("/usr/share/openssh/sshd_config");
  if (config?.kind !== "file") throw new Error("/usr/share/openssh/sshd_config is not in the packages; the recipe (configure.ts) no longer fits them");
  tree.file("/etc/ssh/sshd_config", config.data);
  tree.file("/etc/ssh/sshd_config.d/hv.conf", guestText("sshd.conf"));
}

/** Wanted by packages' own units; a machine without screen, TPM and hibernation boots without them. Each can still be started by name. */
const NOT_AT_BOOT: Readonly<Record<string, readonly string[]>> = {
  "multi-user.target": ["systemd-logind.service", "dbus.service", "systemd-ask-password-wall.path"],
  "getty.target": ["getty-static.service"],
  "local-fs.target": [],
  "sockets.target": ["systemd-creds.socket", "systemd-pcrextend.socket", "systemd-pcrlock.socket", "systemd-sysext.socket", "systemd-initctl.socket", "systemd-hostnamed.socket"],
  "timers.target": [],
  "sysinit.target": [
    ...["dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount"],
    ...["proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service", "systemd-ask-password-console.path", "systemd-firstboot.service"],
    ...["systemd-hibernate-clear.service", "systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-update-done.service"],
    ...["systemd-pcrmachine.service", "systemd-pcrphase-sysinit.service", "systemd-pcrphase.service", "systemd-tpm2-setup-early.service", "systemd-tpm2-setup.service"],
    ...["systemd-sysusers.service", "ldconfig.service", "systemd-journal-flush.service", "systemd-modules-load.service", "kmod-static-nodes.service"],
  ],
};
const NO_GENERATORS = ["systemd-debug-generator", "systemd-getty-generator", "systemd-gpt-auto-generator", "systemd-hibernate-resume-generator", "systemd-rc-local-generator", "systemd-run-generator", "systemd-ssh-generator", "systemd-system-update-generator", "systemd-sysv-generator", "systemd-tpm2-generator"];

function units(tree: FileTree, { time, units: more }: SystemOptions): void {
  for (const [target, names] of Object.entries(NOT_AT_BOOT)) for (const name of names) maskDependency(tree, target, name);
  // Each is a process that reads the kernel's command line and finds nothing to do.
  for (const name of NO_GENERATORS) tree.symlink(`/etc/systemd/system-generators/${name}`, "/dev/null");
  maskUnit(tree, "serial-getty@hvc0.service"); // the agent's
  for (const unit of ["systemd-networkd.service", "ssh.socket", "remote-fs.target", "hv-agent.service", "hv-growfs.service", "hv-resolv.path", ...more]) enableUnit(tree, unit);
  // What enabling systemd-networkd brings along (Also=): for networks that are waited for, and for kernel arguments.
  maskDependency(tree, "network-online.target", "systemd-networkd-wait-online.service");
  maskDependency(tree, "sysinit.target", "systemd-network-generator.service");
  tree.symlink("/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service", "/usr/lib/systemd/system/serial-getty@.service");
  tree.symlink("/etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target");
  // ConditionNeedsUpdate= compares these with /usr: nothing needs it.
  for (const path of ["/etc/.updated", "/var/.updated"]) tree.file(path, "# The image is built up to date.\n", { mtime: time });
}
