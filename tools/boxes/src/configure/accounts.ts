/**
 * Users and groups without running anything: base-passwd's master files, the sysusers.d(5) files of the packages, and our own. What
 * has no fixed number gets the next one below 999, as systemd-sysusers would give it, in the order of files and lines.
 */
import type { FileTree } from "../rootfs/file-tree.ts";
import type { Owners } from "../dpkg/package.ts";

export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly comment: string;
  readonly home: string;
  readonly shell: string;
  /** Of /etc/shadow; "*" = no password will do. */
  readonly password: string;
}
interface Group {
  readonly name: string;
  readonly gid: number;
  readonly members: string[];
}

const NOLOGIN = "/usr/sbin/nologin";
const FIRST_DYNAMIC_ID = 999;

export class Accounts {
  readonly users: User[] = [];
  readonly groups: Group[] = [];

  /** passwd.master and group.master have "*" where /etc/passwd has "x". */
  readMaster(passwd: string, group: string): void {
    for (const line of group.split("\n").filter(Boolean)) {
      const [name = "", , gid = ""] = line.split(":");
      this.groups.push({ name, gid: Number(gid), members: [] });
    }
    for (const line of passwd.split("\n").filter(Boolean)) {
      const [name = "", , uid = "", gid = "", comment = "", home = "", shell = ""] = line.split(":");
      this.users.push({ name, uid: Number(uid), gid: Number(gid), comment, home, shell, password: "*" });
    }
  }

  /** Lines of sysusers.d: `u NAME ID "COMMENT" HOME SHELL`, `g NAME ID`, `m USER GROUP`. What exists is left alone. */
  readSysusers(text: string): void {
    for (const raw of text.split("\n")) {
      const fields = [...raw.trim().matchAll(/"([^"]*)"|(\S+)/g)].map((m) => m[1] ?? (m[2] as string));
      const [type = "", name = "", id = "-", comment = "-", home = "-", shell = "-"] = fields;
      if (type === "" || type.startsWith("#")) continue;
      if (type === "g") this.#group(name, number(id));
      else if (type === "u" || type === "u!") this.#systemUser(name, id, comment, home, shell);
      else if (type === "m") this.addToGroup(name, id);
    }
  }

  addUser(user: User): void {
    this.#group(user.name, user.gid);
    this.users.push(user);
  }

  addToGroup(user: string, group: string): void {
    const found = this.groups.find((g) => g.name === group);
    if (!found) throw new Error(`there is no group ${group} for user ${user}`);
    found.members.push(user);
  }

  get owners(): Owners {
    return { users: new Map(this.users.map((u) => [u.name, u.uid])), groups: new Map(this.groups.map((g) => [g.name, g.gid])) };
  }

  /** `changedDay`: days since 1970, the third field of shadow(5). */
  write(tree: FileTree, changedDay: number): void {
    const lines = (path: string, all: readonly string[], mode: number, gid = 0): void => tree.file(path, all.map((line) => `${line}\n`).join(""), { mode, gid });
    const shadow = this.owners.groups.get("shadow") ?? 0;
    lines("/etc/passwd", this.users.map((u) => `${u.name}:x:${u.uid}:${u.gid}:${u.comment}:${u.home}:${u.shell}`), 0o644);
    lines("/etc/shadow", this.users.map((u) => `${u.name}:${u.password}:${changedDay}:0:99999:7:::`), 0o640, shadow);
    lines("/etc/group", this.groups.map((g) => `${g.name}:x:${g.gid}:${g.members.join(",")}`), 0o644);
    lines("/etc/gshadow", this.groups.map((g) => `${g.name}:*::${g.members.join(",")}`), 0o640, shadow);
  }

  #systemUser(name: string, id: string, comment: string, home: string, shell: string): void {
    if (this.users.some((u) => u.name === name)) return;
    // "UID", "UID:GID", "UID:GROUP", "-:GROUP" or "-".
    const [uidText = "-", groupText] = id.split(":");
    const uid = number(uidText) ?? this.#freeId();
    const gid = groupText === undefined ? this.#group(name, uid) : (number(groupText) ?? this.#group(groupText, undefined));
    const or = (value: string, otherwise: string): string => (value === "-" ? otherwise : value);
    this.users.push({ name, uid, gid, comment: or(comment, ""), home: or(home, "/"), shell: or(shell, NOLOGIN), password: "!*" });
  }

  #group(name: string, gid: number | undefined): number {
    const there = this.groups.find((g) => g.name === name);
    if (there) return there.gid;
    const id = gid ?? this.#freeId();
    this.groups.push({ name, gid: id, members: [] });
    return id;
  }

  #freeId(): number {
    const taken = new Set([...this.users.map((u) => u.uid), ...this.groups.map((g) => g.gid)]);
    let id = FIRST_DYNAMIC_ID;
    while (taken.has(id)) id--;
    return id;
  }
}

const number = (text: string): number | undefined => (/^\d+$/.test(text) ? Number(text) : undefined);
