/** What the command line says to a question. `--isa` and `--loaded` hold for all of them: see isa.ts and beside.ts. */
export type Options = { rounds?: number; milliseconds?: number; only?: string; against?: string; tokens?: number }
