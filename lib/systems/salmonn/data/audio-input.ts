import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'

/**
 * Parse the audio files that a user names in one text, tried in this order: `@FILE` with a path on each line; `["a.wav", "b.wav"]`, a JSON
 * list; a file of exactly this name; `a.wav,b.wav`; one path. JSON is tried before commas, since a JSON list has commas.
 *
 * @throws ConfigError for a text without a file; DataError for a list that cannot be read
 */
export async function parseAudioInput(text: string): Promise<string[]> {
  requireString('parseAudioInput', 'text', text)
  const given = text.trim()
  if (given.startsWith('@')) return pathsOf(await linesOf(given.slice(1)), given)
  if (given.startsWith('[')) return pathsOf(jsonList(given), given)
  if (given !== '' && existsSync(given)) return [given]
  return pathsOf(given.split(','), given)
}

async function linesOf(file: string): Promise<string[]> {
  try {
    return (await readFile(file, 'utf8')).replace(/^\ufeff/, '').split(/\r?\n/)
  } catch (cause) {
    throw new DataError(`@${file}: expected a readable list of paths, got ${(cause as Error).message}.`, {
      file,
      cause,
    })
  }
}

function jsonList(text: string): string[] {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    // A file can be named [1].wav.
    if (existsSync(text) || !text.endsWith(']')) return [text]
    throw new ConfigError(`audio: expected a JSON list of paths, got ${text} (${(cause as Error).message}).`, {
      argument: text,
      cause,
    })
  }
  if (Array.isArray(value) && value.every((path) => typeof path === 'string')) return value
  throw new ConfigError(`audio: expected a list of paths in double quotes, got ${text}.`, { argument: text })
}

function pathsOf(list: readonly string[], given: string): string[] {
  const paths = list.map((path) => path.trim()).filter((path) => path !== '')
  if (paths.length > 0) return paths
  throw new ConfigError(`audio: expected at least one audio file, got ${JSON.stringify(given)}.`, { argument: given })
}
