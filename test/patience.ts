/**
 * Milliseconds after which a test takes something for hanging. Nothing needs a tenth of them on a quiet machine, so a slow
 * or busy one passes too; what a test claims about time is never a number of its own.
 */
export const PATIENCE = 300_000
