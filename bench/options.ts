/** What the command line says to a question. `--isa` and `--loaded` hold for all of them: see isa.ts and beside.ts. */
export type Options = { rounds?: number; milliseconds?: number; only?: string; against?: string; tokens?: number }

/** Whether `--only` means the case: one of its parts, between commas, stands in the case's name or label. */
export const isAsked = (only: string, { name, label }: { name: string; label: string }): boolean =>
  only.split(',').some((part) => `${name} ${label}`.includes(part))
