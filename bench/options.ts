/** Options of a benchmark. `--isa` and `--loaded` work for all: see isa.ts and loaded.ts. */
export type Options = { rounds?: number; milliseconds?: number; only?: string; against?: string; tokens?: number }

/** Whether `--only` means the case: one of its parts, between commas, stands in the case's name or label. */
export const isAsked = (only: string, { name, label }: { name: string; label: string }): boolean =>
  only.split(',').some((part) => `${name} ${label}`.includes(part))
