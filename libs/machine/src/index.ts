export * from "./address-map.ts";
export * from "./device-tree.ts";
export * from "./elf.ts";
export * from "./fdt.ts";
export * from "./linux-image.ts";
export * from "./map-table.ts";
