export { createMappedMemory, mappedMemoryAbsent, openMappedMemory, type MappedLayout, type MappedMemory } from "./mapped-memory.ts";
