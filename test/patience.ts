/**
 * Milliseconds after which a test takes something for hanging. Nothing needs a tenth of them on a quiet machine, so a slow
 * or busy one passes too; what a test claims about time is never a number of its own.
 */
export const PATIENCE = 300_000

/**
 * Bounds on the memory of the process are so many times as wide under `npm run test:sanitizers`, whose shadow memory and
 * quarantine of freed blocks count as the process's. What claims to be constant is left out there by its name.
 */
export const MEMORY_SLACK = process.env.VOXTORCH_SANITIZED ? 10 : 1
