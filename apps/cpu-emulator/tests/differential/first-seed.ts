/**
 * Where random programs begin. POLYVISOR_SEED repeats a run; CI always begins at the same seed, so that what it judges is
 * the change and not the draw; everywhere else they are new each time.
 */
export const firstSeed = Number(process.env["POLYVISOR_SEED"] ?? (process.env["CI"] ? 1 : Math.floor(Math.random() * 2 ** 31)));
