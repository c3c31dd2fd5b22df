/**
 * What an expression sees of a message. Integers of any width are CEL ints, bytes are CEL bytes, and a oneof is
 * transparent: `{ operation: { $case: "read", value: { sector: 0n } } }` reads as `message.read.sector`, and
 * `message.operation` as "read".
 */
export function viewOf(value: unknown): unknown {
  if (typeof value === "number") return Number.isInteger(value) ? BigInt(value) : value;
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map(viewOf);
  if (value instanceof Map) return new Map([...value].map(([key, entry]) => [viewOf(key), viewOf(entry)]));
  const view: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(value)) {
    if (field === undefined) continue;
    if (isOneof(field)) {
      view[name] ??= field.$case;
      view[field.$case] = viewOf(field.value);
    } else view[name] = viewOf(field);
  }
  return view;
}

interface Oneof {
  $case: string;
  value: unknown;
}
function isOneof(value: unknown): value is Oneof {
  return typeof value === "object" && value !== null && "$case" in value;
}

/** "message.frames[0].data" → frames, 0, data. */
export function parsePath(path: string): string[] {
  const names = path.replace(/\[(\d+)\]/g, ".$1").split(".");
  if (names[0] === "message") names.shift();
  if (names.length === 0 || names.some((name) => !/^\w+$/.test(name))) {
    throw new Error(`"${path}" is not a field path such as write.data or frames[0].data`);
  }
  return names;
}

/** A copy of the message with one field replaced; what the path does not touch is shared with the original. */
export function assignField(message: unknown, path: readonly string[], value: unknown): unknown {
  const [name, ...rest] = path;
  if (name === undefined) return coerce(message, value);
  if (Array.isArray(message)) {
    const index = Number(name);
    if (!(index < message.length)) throw new Error(`no element ${name}: the list has ${message.length}`);
    return message.with(index, assignField(message[index], rest, value));
  }
  if (message instanceof Uint8Array && rest.length === 0) {
    const byte = coerce(message[Number(name)], value);
    if (typeof byte !== "number" || byte < 0 || byte > 255) throw new Error(`a byte cannot hold ${String(value).slice(0, 40)}`);
    return message.with(Number(name), byte);
  }
  if (typeof message === "object" && message !== null && !(message instanceof Uint8Array)) {
    const fields = message as Record<string, unknown>;
    for (const [fieldName, field] of Object.entries(fields)) {
      if (isOneof(field) && field.$case === name) {
        return { ...fields, [fieldName]: { $case: name, value: assignField(field.value, rest, value) } };
      }
    }
    if (Object.hasOwn(fields, name) && fields[name] !== undefined && !isOneof(fields[name])) {
      return { ...fields, [name]: assignField(fields[name], rest, value) };
    }
  }
  throw new Error(`the message has no field ${path.join(".")}`);
}

const UINT64_MAX = 0xffff_ffff_ffff_ffffn;

/** The value in the type that the field has now. */
function coerce(present: unknown, value: any): unknown {
  const integer = typeof value === "bigint" ? value : typeof value?.value === "bigint" ? (value.value as bigint) : undefined;
  switch (typeof present) {
    case "bigint":
      if (integer !== undefined && integer >= 0n && integer <= UINT64_MAX) return integer;
      break;
    case "number":
      if (integer !== undefined && integer >= -(2n ** 31n) && integer < 2n ** 32n) return Number(integer);
      if (typeof value === "number") return value;
      break;
    case "string":
    case "boolean":
      if (typeof value === typeof present) return value;
      break;
    default:
      if (present instanceof Uint8Array) {
        if (value instanceof Uint8Array) return value;
        if (typeof value === "string") return new TextEncoder().encode(value);
      }
  }
  const kind = present instanceof Uint8Array ? "bytes" : typeof present;
  throw new Error(`a field of type ${kind} cannot hold ${typeof value} ${String(value).slice(0, 40)}`);
}
