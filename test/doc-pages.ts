import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const docs = fileURLToPath(new URL('../docs', import.meta.url))

/** The pages of docs/ that are written by hand, by their paths; the others are generated, perhaps while this runs. */
export const docPages: readonly string[] = ['.', 'guide', 'systems'].flatMap((folder) =>
  readdirSync(join(docs, folder))
    .filter((name) => name.endsWith('.md') && !['cli.md', 'pytorch-names.md'].includes(name))
    .map((name) => join('docs', folder, name)),
)
