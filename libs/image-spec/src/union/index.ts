export { compareUnions, type Difference } from "./compare.ts";
export { shown, UnionView, type LayerInput, type LayerProblem, type LayerSummary, type UnionEvent, type UnionFile } from "./union-view.ts";
