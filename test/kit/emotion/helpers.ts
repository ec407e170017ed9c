import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder of the real corpora, which users of the library do not have. */
export const data = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../shared/data', import.meta.url))
export const hasData = (name: string): boolean => existsSync(join(data, name))

/** A fresh folder with files in it: texts, or values as JSON. */
export function folder(files: Record<string, unknown> = {}): string {
  const made = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-'))
  for (const [name, content] of Object.entries(files)) {
    const path = join(made, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, typeof content === 'string' || Buffer.isBuffer(content) ? content : JSON.stringify(content))
  }
  return made
}

export const file = (content: unknown, name = 'data.json'): string => join(folder({ [name]: content }), name)
