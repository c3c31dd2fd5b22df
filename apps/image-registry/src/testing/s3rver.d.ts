/** What we use of a package that has no types of its own. */
declare module "@20minutes/s3rver" {
  export default class S3rver {
    constructor(options: { address: string; port: number; silent: boolean; directory: string; configureBuckets: { name: string }[] });
    run(): Promise<unknown>;
    close(): Promise<void>;
  }
}
