import { DmaStatus, GrantStatus, MemoryServiceService } from "./gen/polyvisor/memory/v1/memory.ts";
import type { DmaRequest, DmaResponse, LeaseRequest, LeaseResponse } from "./gen/polyvisor/memory/v1/memory.ts";
import type { Contract } from "./contract.ts";
import type { Port } from "./port.ts";
export * from "./gen/polyvisor/memory/v1/memory.ts";

/**
 * Where a lease of kind SHARED finds the memory: the memory-manager of the same process. Not part of the wire
 * contract; a cpu-emulator without one opens its leases as COHERENT.
 */
export interface SharedMemorySource {
  /** RAM of the space behind the token, or undefined when it is not in this process. */
  shared(token: string): { memory: WebAssembly.Memory; ramOffset: number; ramBytes: number } | undefined;
}

/**
 * How a lease of kind MAPPED finds the memory: maps the memfd that the token names behind `offset` bytes of the holder's own.
 * Throws ContractError when this process cannot reach it.
 */
export type MapMemory = (token: string, layout: { readonly offset: number; readonly bytes: number }) => WebAssembly.Memory;

export const MEMORY = {
  service: "memory-manager",
  definition: MemoryServiceService,
  methods: {
    readMemory: { plane: "dma" },
    writeMemory: { plane: "dma" },
    lease: {
      plane: "pages",
      deniedRequest: (request: LeaseRequest): LeaseResponse | null =>
        request.message?.$case === "acquire"
          ? {
              machine: request.machine,
              message: { $case: "grant", value: { id: request.message.value.id, status: GrantStatus.DENIED, ranges: [] } },
            }
          : null,
      deniedResponse: (response: LeaseResponse): LeaseResponse | null =>
        response.message?.$case === "grant"
          ? {
              machine: response.machine,
              message: { $case: "grant", value: { ...response.message.value, status: GrantStatus.DENIED, ranges: [] } },
            }
          : null,
    },
    dma: {
      plane: "dma",
      deniedRequest: (request: DmaRequest): DmaResponse => ({
        machine: request.machine,
        id: request.id,
        status: DmaStatus.DENIED,
        data: [],
      }),
      deniedResponse: (response: DmaResponse): DmaResponse => ({ ...response, status: DmaStatus.DENIED, data: [] }),
    },
  },
} satisfies Contract<typeof MemoryServiceService>;
export type MemoryPort = Port<typeof MemoryServiceService>;
