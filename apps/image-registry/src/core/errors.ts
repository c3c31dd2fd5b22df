import { asContractError, ContractError } from "@polyvisor/contracts";
import { ImageSpecError } from "@polyvisor/image-spec";
import { StorageError } from "./files.ts";

/** Storage and format errors in the words of the contract. */
export function contractError(operation: string, error: unknown): ContractError {
  if (error instanceof ImageSpecError) return new ContractError("invalid", `${operation}: ${error.message}`, { cause: error });
  if (error instanceof StorageError) {
    const message = `${operation}: ${error.message}`;
    if (error.problem === "no-space") return new ContractError("exhausted", `${message}; free some space and try again`, { cause: error });
    if (error.problem === "not-found") return new ContractError("not-found", message, { cause: error });
    return new ContractError("internal", message, { cause: error });
  }
  return asContractError(error);
}

/** Runs one operation, its errors translated. */
export async function inContract<T>(operation: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw contractError(operation, error);
  }
}
