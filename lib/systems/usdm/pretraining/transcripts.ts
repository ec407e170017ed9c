import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { makeDirectory, writeAtomicallySync } from '../../../base/atomic.js'
import { requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { utf8 } from '../../../files/text.js'
import { ustmTranscript } from './words.js'

const NORMALIZED = '.normalized.txt'

/**
 * Writes `<name>.txt` of each `<name>.normalized.txt` below a folder, as LibriTTS has them: what is said in small letters without
 * punctuation, for an aligner.
 * @param output where the folders are made again. Default: beside
 * @returns how many
 * @throws ConfigError where there is none; DataError for a file that is no text
 */
export async function writeUstmTranscripts(folder: string, output: string = folder): Promise<number> {
  const where = 'writeUstmTranscripts'
  requireString(where, 'folder', folder)
  requireString(where, 'output', output)
  const all = await readdir(folder, { recursive: true }).catch((cause: Error) => {
    throw new ConfigError(`${where}: ${folder} cannot be read: ${cause.message}`, { argument: 'folder', cause })
  })
  const texts = all.filter((path) => path.endsWith(NORMALIZED)).sort()
  if (texts.length === 0) {
    throw new ConfigError(`${where}: ${folder} holds no <name>${NORMALIZED}`, { argument: 'folder' })
  }
  for (const path of texts) {
    const file = join(folder, path)
    const text = utf8(await readFile(file), file, 1)
    const written = join(output, `${path.slice(0, -NORMALIZED.length)}.txt`)
    makeDirectory(dirname(written), DataError)
    writeAtomicallySync(written, DataError, ustmTranscript(text))
  }
  return texts.length
}
