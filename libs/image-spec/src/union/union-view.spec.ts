import { describe, expect, it } from "vitest";
import { compareUnions, readTar, UnionView, type LayerInput, type LayerProblem } from "../index.ts";

/** One line of a hand-made layer: "dir/", "file=content", "link->target", "hard=>target", "device!major,minor". */
function tar(lines: readonly string[]): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (const line of lines) {
    const [, name = "", operator = "", value = ""] = /^(.*?)(?:(->|=>|=|!)([^]*))?$/.exec(line) ?? [];
    const block = new Uint8Array(512);
    const put = (at: number, text: string): void => block.set(new TextEncoder().encode(text), at);
    put(0, name);
    put(100, "0000644\0");
    const content = new TextEncoder().encode(operator === "=" ? value : "");
    put(124, `${content.length.toString(8).padStart(11, "0")}\0`);
    put(136, "00000000000\0");
    put(156, { "->": "2", "=>": "1", "!": "3" }[operator] ?? (name.endsWith("/") ? "5" : "0"));
    if (operator === "->" || operator === "=>") put(157, value);
    put(257, "ustar\x0000");
    if (operator === "!") for (const [i, number] of value.split(",").entries()) put(329 + 8 * i, `${Number(number).toString(8).padStart(7, "0")}\0`);
    put(148, `${block.reduce((sum, byte) => sum + byte, 256).toString(8).padStart(6, "0")}\0 `);
    blocks.push(block, content, new Uint8Array(-content.length & 511));
  }
  return Buffer.concat([...blocks, new Uint8Array(1024)]);
}

async function union(...layers: (readonly string[])[]): Promise<UnionView> {
  const view = new UnionView();
  for (const lines of layers) {
    const entries: LayerInput[] = [];
    for await (const entry of readTar((async function* () { yield tar(lines); })())) {
      entries.push({ ...entry, ...(entry.kind === "file" ? { sha256: Buffer.from(await entry.read()).toString("hex") } : {}) });
    }
    view.addLayer(entries);
  }
  return view;
}

/** Golden text: every file with its layer, as `path@layer`. */
const visible = (view: UnionView): string => [...view.files()].filter(({ kind }) => kind !== "directory").map(({ path, layer }) => `${path}@${layer}`).join(" ");
const history = (view: UnionView, path: string): string => view.history(path).events.map((event) => (event.what === "put" ? `${event.layer}:${event.file.kind}` : `${event.layer}:${event.what} by ${event.by}`)).join(" | ");
const problems = (view: UnionView, level: LayerProblem["level"]): string[] => view.problems.filter((each) => each.level === level).map(({ layer, entry, why }) => `${layer} ${entry}: ${why}`);

describe("a union of layers (OCI layer.md)", () => {
  it("later layers lie over earlier ones; directories merge", async () => {
    const view = await union(["etc/", "etc/motd=one", "etc/os=x"], ["etc/motd=two", "new=n"]);
    expect(visible(view)).toBe("/etc/motd@1 /etc/os@0 /new@1");
    expect(history(view, "/etc/motd")).toBe("0:file | 1:file");
    expect(view.layers()).toEqual([
      { added: 3, changed: 0, removed: 0, whiteouts: 0, opaque: 0, bytes: 4, visible: 1, visibleBytes: 1 },
      { added: 1, changed: 1, removed: 0, whiteouts: 0, opaque: 0, bytes: 4, visible: 2, visibleBytes: 4 },
    ]);
  });
  it("a whiteout hides a file or a whole tree of lower layers, and no more; what comes back later shows again", async () => {
    const view = await union(["a/b/c=1", "a/d=1", "e=1"], ["a/.wh.b", ".wh.e"], ["e=2"]);
    expect(visible(view)).toBe("/a/d@0 /e@2");
    expect(history(view, "/a/b/c")).toBe("0:file | 1:whiteout by /a");
    expect(history(view, "/e")).toBe("0:file | 1:whiteout by / | 2:file");
    expect(view.layers()[1]).toMatchObject({ removed: 2, whiteouts: 2 });
  });
  it("whiteouts and opaque directories spare their own layer, wherever they stand in the archive", async () => {
    const view = await union(["d/old=1", "d/sub/x=1", "f=1"], ["d/new=2", "f=2", ".wh.f", "d/.wh..wh..opq"]);
    expect(visible(view)).toBe("/d/new@1 /f@1");
    expect(history(view, "/d/sub/x")).toBe("0:file | 1:opaque by /d");
  });
  it("a file takes the place of a directory and all in it; a directory that of a file", async () => {
    const view = await union(["d/x=1", "f=1"], ["d=now a file", "f/", "f/y=1"]);
    expect(visible(view)).toBe("/d@1 /f/y@1");
    expect(history(view, "/d/x")).toBe("0:file | 1:covered by /d");
  });
  it("entries land where links on their way lead, inside the image", async () => {
    const view = await union(["usr/bin/", "bin->usr/bin", "abs->/usr"], ["bin/sh=1", "abs/lib/x=1"]);
    expect(visible(view)).toBe("/abs@0 /bin@0 /usr/bin/sh@1 /usr/lib/x@1");
    expect(view.find("/bin/sh")?.path).toBe("/usr/bin/sh");
    expect(view.history("/bin/sh").path).toBe("/usr/bin/sh");
    expect(problems(view, "warning")).toEqual(["1 bin/sh: a link on its way leads it to /usr/bin/sh", "1 abs/lib/x: a link on its way leads it to /usr/lib/x"]);
  });
  it("hard links are the file they name; AUFS bookkeeping is no file", async () => {
    const view = await union(["a=12345", "b=>a", "c=>b", ".wh..wh.plnk/", ".wh..wh.plnk/1.2=", ".wh..wh.aufs="]);
    expect([...view.files()].filter(({ kind }) => kind === "file").map(({ path, size, linkTo }) => [path, size, linkTo])).toEqual([["/a", 5, undefined], ["/b", 5, "/a"], ["/c", 5, "/a"]]);
    expect(view.layers()[0]).toMatchObject({ bytes: 5, visibleBytes: 5 });
    expect(view.problems).toEqual([]);
  });
});

describe("hostile layers", () => {
  it.each([
    ["../../etc/passwd=x", /contains "\.\."/],
    ["a/../../x=x", /contains "\.\."/],
    ["x=>../../etc/shadow", /hard link to .*contains "\.\."/],
    ["x=>nothing", /which is not in the image/],
    ["d/\u0000", /./],
    [".wh.", /names nothing/],
    [".wh...", /names nothing/],
    [`${"d/".repeat(600)}`.slice(0, 99), /./],
  ])("%j → refused or harmless, the image's own files stay", async (line, message) => {
    const view = await union(["etc/passwd=real"], [line]);
    expect(view.find("/etc/passwd")).toMatchObject({ layer: 0 });
    for (const problem of problems(view, "refused")) expect(problem).toMatch(message);
  });
  it("a link out of the image, then a file through it: the file lands inside", async () => {
    const view = await union(["out->../../../../tmp", "out/evil=x", "etc->/etc", "etc/x=1"]);
    expect(visible(view)).toBe("/etc@0 /out@0 /tmp/evil@0");
    expect(problems(view, "warning").join("\n")).toMatch(/0 out: a symbolic link that points above the root[^]*out\/evil: a link on its way leads it to \/tmp\/evil/);
    expect(problems(view, "refused")).toEqual(["0 etc/x: links on its way lead in a circle"]);
  });
  it("a file below a file, a hard link to a directory, a kind that tar does not have → refused", async () => {
    const view = await union(["f=1", "f/x=1", "d/", "h=>d"]);
    expect(problems(view, "refused")).toEqual(["0 f/x: /f, on its way, is a file", "0 h: a hard link to the directory d"]);
    view.addLayer([{ ...[...view.files()][0]!, path: "odd", kind: "unknown", userName: "", groupName: "", pax: new Map(), sha256: "" }]);
    expect(problems(view, "refused").at(-1)).toMatch(/1 odd: a kind of file/);
  });
  it("device nodes are shown and remarked; one like overlayfs' whiteout hides nothing", async () => {
    const view = await union(["f=1"], ["disk!8,0", "f!0,0"]);
    expect(view.find("/f")).toMatchObject({ kind: "character-device", layer: 1 });
    expect(problems(view, "warning")).toEqual(["1 disk: a character-device 8:0", "1 f: a character device 0:0: a whiteout of overlayfs that OCI layers do not have"]);
  });
  it("names that would steer a terminal come out escaped", async () => {
    const view = await union(["../\u001b[2J\u202egpj.exe=x"]);
    expect(view.problems[0]!.entry).toBe("../\\x1b[2J\\x202egpj.exe");
  });
  it("the same path twice in a layer: the later counts, and it is said; a million problems are counted, a thousand kept", async () => {
    const view = await union(["a=1", "a=22"]);
    expect(view.find("/a")?.size).toBe(2);
    expect(problems(view, "warning")).toEqual(["0 a: the layer has this path twice; the later one counts"]);
    const [first] = [...(await union(["x=1"])).files()];
    const bad = new UnionView();
    bad.addLayer(Array.from({ length: 5000 }, () => ({ ...first!, path: "../x", userName: "", groupName: "", pax: new Map(), sha256: "" })));
    expect([bad.problems.length, bad.problemCount]).toEqual([1000, 5000]);
  });
});

describe("two images compared", () => {
  it("added, changed (with what), deleted; equal content from other layers is equal", async () => {
    const before = await union(["same=1", "gone=1", "c=abc", "m=1", "l->a"]);
    const after = await union(["same=1"], ["c=xyz", "new=1", "l->b", "m=1"]);
    expect(compareUnions(before, after).map(({ change, path, what }) => `${change} ${path} ${what.join(", ")}`.trim())).toEqual(["C /c content", "D /gone", "C /l target a → b", "A /new"]);
  });
});
