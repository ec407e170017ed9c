/** What the command line says to a question. */
export type Options = { rounds?: number; milliseconds?: number; only?: string }
