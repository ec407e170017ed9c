import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { makeDirectory, writeAtomicallySync } from '../../../base/atomic.js'
import { requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { utf8 } from '../../../files/text.js'
import { ustmTranscript } from './words.js'

const NORMALIZED = '.normalized.txt'

/**
 * Write `<name>.txt` for each `<name>.normalized.txt` in a folder and its subfolders, as in LibriTTS: lowercase text without punctuation,
 * for an aligner.
 * @param output root of the written files, with the same subfolders. Default: `folder`
 * @returns the number of files
 * @throws ConfigError if there are none; DataError for a file that is not UTF-8 text
 */
export async function writeUstmTranscripts(folder: string, output: string = folder): Promise<number> {
  const where = 'writeUstmTranscripts'
  requireString(where, 'folder', folder)
  requireString(where, 'output', output)
  const all = await readdir(folder, { recursive: true }).catch((cause: Error) => {
    throw new ConfigError(`${where}: expected a readable folder, got ${folder}: ${cause.message}`, {
      argument: 'folder',
      cause,
    })
  })
  const texts = all.filter((path) => path.endsWith(NORMALIZED)).sort()
  if (texts.length === 0) {
    throw new ConfigError(`${where}: expected files <name>${NORMALIZED} in ${folder}, got none.`, {
      argument: 'folder',
    })
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
