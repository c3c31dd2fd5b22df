import type { Block, Region, Target } from "./region.ts";

/**
 * A region's blocks as a graph that can be written with nothing but Wasm's loops and blocks. After N. Ramsey, "Beyond
 * Relooper" (ICFP 2022): code follows the dominator tree. Loops with several entries get a *selector* in front: a node
 * that goes on to one of them by a number in a local.
 */
export class FlowNode {
  /** Undefined: a selector. */
  readonly block: Block | undefined;
  /** Which local holds the selector's number. 0 is the region's entry. */
  readonly selector: number;
  readonly edges: Edge[] = [];
  /** Position in reverse postorder. */
  order = -1;
  dominator: FlowNode | undefined;
  readonly dominated: FlowNode[] = [];
  incoming: Edge[] = [];
  /** Edges from nodes earlier in the order; two or more make it a merge point. */
  forward = 0;
  /** Target of a backward edge. */
  loop = false;

  constructor(block: Block | undefined, selector = -1) {
    this.block = block;
    this.selector = selector;
  }
  get merge(): boolean {
    return this.forward >= 2;
  }
}

export interface Edge {
  readonly from: FlowNode;
  /** Offset of the code it leads to. */
  readonly offset: number;
  /** Undefined: it leaves the region. */
  to: FlowNode | undefined;
  /** Selectors to set on the way. */
  readonly sets: [selector: number, value: number][];
}

export interface Structure {
  readonly root: FlowNode;
  readonly selectors: number;
  /** In reverse postorder. */
  readonly nodes: readonly FlowNode[];
}

export function structure(region: Region): Structure {
  const root = new FlowNode(undefined, 0);
  const nodes = [root];
  const byBlock = new Map<Block, FlowNode>();
  for (const block of region.blocks) {
    const node = new FlowNode(block);
    byBlock.set(block, node);
    nodes.push(node);
  }
  const edge = (from: FlowNode, target: Target): void => {
    from.edges.push({ from, offset: target.offset, to: target.kind === "block" ? byBlock.get(target) : undefined, sets: [] });
  };
  for (const entry of region.entries) edge(root, entry);
  for (const [block, node] of byBlock) for (const target of targets(block)) edge(node, target);
  const selectors = new Selectors(nodes, root);
  selectors.reduce(new Set(nodes), undefined);
  return { root, selectors: selectors.count, nodes: dominate(root) };
}

/** In the order in which the terminator's code uses its edges. */
function targets({ terminator }: Block): readonly Target[] {
  switch (terminator.kind) {
    case "jump": case "call": return [terminator.target];
    case "branch": return [terminator.taken, terminator.next];
    case "indirect": return terminator.expected;
    case "slow": return [];
  }
}

/** Gives every loop a single entry. */
class Selectors {
  count = 1;
  readonly #nodes: FlowNode[];
  readonly #root: FlowNode;
  constructor(nodes: FlowNode[], root: FlowNode) {
    this.#nodes = nodes;
    this.#root = root;
  }

  /** `header`: the loop's only entry, whose incoming edges do not count. */
  reduce(nodes: ReadonlySet<FlowNode>, header: FlowNode | undefined): void {
    for (const loop of loops(nodes, header)) {
      this.#connect();
      const entries = [...loop].filter((node) => node.incoming.some((edge) => !loop.has(edge.from)));
      const single = entries.length > 1 ? this.#select(loop, entries) : (entries[0] ?? this.#root);
      this.reduce(loop, single);
    }
  }

  #connect(): void {
    for (const node of this.#nodes) node.incoming = [];
    for (const node of this.#nodes) for (const edge of node.edges) edge.to?.incoming.push(edge);
  }

  /** A selector before the entries. The first is the one that the loop itself goes to most. */
  #select(loop: Set<FlowNode>, entries: FlowNode[]): FlowNode {
    const inner = (node: FlowNode): number => node.incoming.filter((edge) => loop.has(edge.from)).length * 2 - (node.incoming.some((edge) => edge.from === this.#root) ? 1 : 0);
    entries.sort((a, b) => inner(b) - inner(a));
    const selector = new FlowNode(undefined, this.count++);
    for (const [value, entry] of entries.entries()) {
      for (const edge of entry.incoming) {
        // Edges inside the loop to the other entries go there directly: from the selector on they are ordinary nodes.
        if (value > 0 && loop.has(edge.from)) continue;
        edge.to = selector;
        edge.sets.push([selector.selector, value]);
      }
      selector.edges.push({ from: selector, offset: entry.block?.offset ?? 0, to: entry, sets: [] });
    }
    loop.add(selector);
    this.#nodes.push(selector);
    return selector;
  }
}

/** Strongly connected parts with a cycle, not counting edges to `header` (Tarjan, without recursion). */
function loops(nodes: ReadonlySet<FlowNode>, header: FlowNode | undefined): Set<FlowNode>[] {
  const found: Set<FlowNode>[] = [];
  const index = new Map<FlowNode, number>();
  const low = new Map<FlowNode, number>();
  const stack: FlowNode[] = [];
  const open = new Set<FlowNode>();
  const begin = (node: FlowNode): [FlowNode, number] => {
    index.set(node, index.size);
    low.set(node, index.get(node)!);
    stack.push(node);
    open.add(node);
    return [node, 0];
  };
  for (const start of nodes) {
    if (index.has(start)) continue;
    const calls = [begin(start)];
    while (calls.length > 0) {
      const call = calls.at(-1)!;
      const [node, next] = call;
      if (next < node.edges.length) {
        call[1]++;
        const to = node.edges[next]!.to;
        if (!to || to === header || !nodes.has(to)) continue;
        if (!index.has(to)) calls.push(begin(to));
        else if (open.has(to)) low.set(node, Math.min(low.get(node)!, index.get(to)!));
        continue;
      }
      calls.pop();
      const parent = calls.at(-1)?.[0];
      if (parent) low.set(parent, Math.min(low.get(parent)!, low.get(node)!));
      if (low.get(node) !== index.get(node)) continue;
      const part = new Set<FlowNode>();
      for (let member: FlowNode; part.add((member = stack.pop()!)), open.delete(member), member !== node; );
      if (part.size > 1 || (node !== header && node.edges.some((edge) => edge.to === node))) found.push(part);
    }
  }
  return found;
}

/** Reverse postorder and dominators (Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm"). */
function dominate(root: FlowNode): FlowNode[] {
  const nodes = postorder(root).reverse();
  for (const [i, node] of nodes.entries()) {
    node.order = i;
    node.incoming = [];
  }
  for (const node of nodes) {
    for (const edge of node.edges) {
      if (!edge.to) continue;
      edge.to.incoming.push(edge);
      if (edge.to.order <= node.order) edge.to.loop = true;
      else edge.to.forward++;
    }
  }
  root.dominator = root;
  const common = (a: FlowNode, b: FlowNode): FlowNode => {
    while (a !== b) {
      while (a.order > b.order) a = a.dominator!;
      while (b.order > a.order) b = b.dominator!;
    }
    return a;
  };
  for (let changed = true; changed; ) {
    changed = false;
    for (const node of nodes) {
      if (node === root) continue;
      let dominator: FlowNode | undefined;
      for (const { from } of node.incoming) if (from.dominator) dominator = dominator ? common(dominator, from) : from;
      if (dominator !== node.dominator) {
        node.dominator = dominator;
        changed = true;
      }
    }
  }
  for (const node of nodes) if (node !== root) node.dominator!.dominated.push(node);
  return nodes;
}

function postorder(root: FlowNode): FlowNode[] {
  const done: FlowNode[] = [];
  const seen = new Set([root]);
  const calls: [FlowNode, number][] = [[root, 0]];
  while (calls.length > 0) {
    const call = calls.at(-1)!;
    const [node, next] = call;
    if (next >= node.edges.length) {
      done.push(node);
      calls.pop();
      continue;
    }
    call[1]++;
    // The last edge first: the first one then comes right behind the node.
    const to = node.edges[node.edges.length - 1 - next]!.to;
    if (!to || seen.has(to)) continue;
    seen.add(to);
    calls.push([to, 0]);
  }
  return done;
}
