/** Value types (core spec 5.3.1). */
export const I32 = 0x7f;
export const I64 = 0x7e;
export const F32 = 0x7d;
export const F64 = 0x7c;
export const V128 = 0x7b;
export const FUNCREF = 0x70;
export type ValueType = typeof I32 | typeof I64 | typeof F32 | typeof F64 | typeof V128;

/** Block type without a result. */
export const VOID = 0x40;
export type BlockType = ValueType | typeof VOID;

/**
 * Instructions without immediates, by opcode (core spec 5.4.5 "Numeric Instructions", 5.4.1). A name is the spec's with
 * the dots and underscores turned into camel case.
 */
export const Op = {
  unreachable: 0x00, nop: 0x01, return: 0x0f, drop: 0x1a, select: 0x1b,
  i32Eqz: 0x45, i32Eq: 0x46, i32Ne: 0x47, i32LtS: 0x48, i32LtU: 0x49, i32GtS: 0x4a, i32GtU: 0x4b,
  i32LeS: 0x4c, i32LeU: 0x4d, i32GeS: 0x4e, i32GeU: 0x4f,
  i64Eqz: 0x50, i64Eq: 0x51, i64Ne: 0x52, i64LtS: 0x53, i64LtU: 0x54, i64GtS: 0x55, i64GtU: 0x56,
  i64LeS: 0x57, i64LeU: 0x58, i64GeS: 0x59, i64GeU: 0x5a,
  f32Eq: 0x5b, f32Ne: 0x5c, f32Lt: 0x5d, f32Gt: 0x5e, f32Le: 0x5f, f32Ge: 0x60,
  f64Eq: 0x61, f64Ne: 0x62, f64Lt: 0x63, f64Gt: 0x64, f64Le: 0x65, f64Ge: 0x66,
  i32Clz: 0x67, i32Ctz: 0x68, i32Popcnt: 0x69, i32Add: 0x6a, i32Sub: 0x6b, i32Mul: 0x6c,
  i32DivS: 0x6d, i32DivU: 0x6e, i32RemS: 0x6f, i32RemU: 0x70, i32And: 0x71, i32Or: 0x72, i32Xor: 0x73,
  i32Shl: 0x74, i32ShrS: 0x75, i32ShrU: 0x76, i32Rotl: 0x77, i32Rotr: 0x78,
  i64Clz: 0x79, i64Ctz: 0x7a, i64Popcnt: 0x7b, i64Add: 0x7c, i64Sub: 0x7d, i64Mul: 0x7e,
  i64DivS: 0x7f, i64DivU: 0x80, i64RemS: 0x81, i64RemU: 0x82, i64And: 0x83, i64Or: 0x84, i64Xor: 0x85,
  i64Shl: 0x86, i64ShrS: 0x87, i64ShrU: 0x88, i64Rotl: 0x89, i64Rotr: 0x8a,
  f32Abs: 0x8b, f32Neg: 0x8c, f32Ceil: 0x8d, f32Floor: 0x8e, f32Trunc: 0x8f, f32Nearest: 0x90, f32Sqrt: 0x91,
  f32Add: 0x92, f32Sub: 0x93, f32Mul: 0x94, f32Div: 0x95, f32Min: 0x96, f32Max: 0x97, f32Copysign: 0x98,
  f64Abs: 0x99, f64Neg: 0x9a, f64Ceil: 0x9b, f64Floor: 0x9c, f64Trunc: 0x9d, f64Nearest: 0x9e, f64Sqrt: 0x9f,
  f64Add: 0xa0, f64Sub: 0xa1, f64Mul: 0xa2, f64Div: 0xa3, f64Min: 0xa4, f64Max: 0xa5, f64Copysign: 0xa6,
  i32WrapI64: 0xa7, i32TruncF32S: 0xa8, i32TruncF32U: 0xa9, i32TruncF64S: 0xaa, i32TruncF64U: 0xab,
  i64ExtendI32S: 0xac, i64ExtendI32U: 0xad,
  i64TruncF32S: 0xae, i64TruncF32U: 0xaf, i64TruncF64S: 0xb0, i64TruncF64U: 0xb1,
  f32ConvertI32S: 0xb2, f32ConvertI32U: 0xb3, f32ConvertI64S: 0xb4, f32ConvertI64U: 0xb5, f32DemoteF64: 0xb6,
  f64ConvertI32S: 0xb7, f64ConvertI32U: 0xb8, f64ConvertI64S: 0xb9, f64ConvertI64U: 0xba, f64PromoteF32: 0xbb,
  i32ReinterpretF32: 0xbc, i64ReinterpretF64: 0xbd, f32ReinterpretI32: 0xbe, f64ReinterpretI64: 0xbf,
  i32Extend8S: 0xc0, i32Extend16S: 0xc1, i64Extend8S: 0xc2, i64Extend16S: 0xc3, i64Extend32S: 0xc4,
} as const;
export type Op = (typeof Op)[keyof typeof Op];

/** Plain memory accesses: opcode and log2 of the access width (core spec 5.4.6). */
export const Mem = {
  i32Load: [0x28, 2], i64Load: [0x29, 3], f32Load: [0x2a, 2], f64Load: [0x2b, 3],
  i32Load8S: [0x2c, 0], i32Load8U: [0x2d, 0], i32Load16S: [0x2e, 1], i32Load16U: [0x2f, 1],
  i64Load8S: [0x30, 0], i64Load8U: [0x31, 0], i64Load16S: [0x32, 1], i64Load16U: [0x33, 1],
  i64Load32S: [0x34, 2], i64Load32U: [0x35, 2],
  i32Store: [0x36, 2], i64Store: [0x37, 3], f32Store: [0x38, 2], f64Store: [0x39, 3],
  i32Store8: [0x3a, 0], i32Store16: [0x3b, 1], i64Store8: [0x3c, 0], i64Store16: [0x3d, 1], i64Store32: [0x3e, 2],
} as const satisfies Record<string, readonly [number, number]>;
export type MemOp = (typeof Mem)[keyof typeof Mem];

/** Atomic accesses, behind prefix 0xFE (threads proposal): opcode and log2 width; alignment must be natural. */
export const Atomic = {
  notify: [0x00, 2], wait32: [0x01, 2], wait64: [0x02, 3],
  i32Load: [0x10, 2], i64Load: [0x11, 3], i64Load32U: [0x16, 2],
  i32Store: [0x17, 2], i64Store: [0x18, 3], i64Store32: [0x1d, 2],
  i32Add: [0x1e, 2], i64Add: [0x1f, 3], i64Add32U: [0x24, 2],
  i32Sub: [0x25, 2], i64Sub: [0x26, 3],
  i32And: [0x2c, 2], i64And: [0x2d, 3], i64And32U: [0x32, 2],
  i32Or: [0x33, 2], i64Or: [0x34, 3], i64Or32U: [0x39, 2],
  i32Xor: [0x3a, 2], i64Xor: [0x3b, 3], i64Xor32U: [0x40, 2],
  i32Xchg: [0x41, 2], i64Xchg: [0x42, 3], i64Xchg32U: [0x47, 2],
  i32Cmpxchg: [0x48, 2], i64Cmpxchg: [0x49, 3], i64Cmpxchg32U: [0x4e, 2],
} as const satisfies Record<string, readonly [number, number]>;
export type AtomicOp = (typeof Atomic)[keyof typeof Atomic];

/** Vector instructions without immediates, behind prefix 0xFD (core spec 5.4.8, relaxed SIMD). */
export const Simd = {
  f32x4Splat: 0x13, f64x2Splat: 0x14, v128Xor: 0x51, v128Or: 0x50, v128AnyTrue: 0x53, i64x2Eq: 0xd6, i64x2AllTrue: 0xc3,
  f32x4RelaxedMadd: 0x105, f32x4RelaxedNmadd: 0x106, f64x2RelaxedMadd: 0x107, f64x2RelaxedNmadd: 0x108,
} as const;

/** Saturating truncations, behind prefix 0xFC. */
export const Sat = {
  i32F32S: 0, i32F32U: 1, i32F64S: 2, i32F64U: 3, i64F32S: 4, i64F32U: 5, i64F64S: 6, i64F64U: 7,
} as const;
