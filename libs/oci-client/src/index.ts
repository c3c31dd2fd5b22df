export type { Credentials } from "./authorizer.ts";
export * from "./client.ts";
export * from "./copy-image.ts";
export * from "./oci-client-error.ts";
export type { BlobSource, PushOptions, PushOutcome } from "./push-blob.ts";
export * from "./repository.ts";
