import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'

/**
 * The sound files that a user names in one text, tried in this order: `@FILE` holds a path on each line; `["a.wav",
 * "b.wav"]` is a JSON list; a file of exactly this name; `a.wav,b.wav`; one path. JSON comes before commas, so that a list
 * of several is one.
 *
 * @throws ConfigError for a text that names none; DataError for a list that cannot be read
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
    throw new DataError(`${file || '@'} cannot be read: ${(cause as Error).message}`, { file, cause })
  }
}

function jsonList(text: string): string[] {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    // A file may be called [1].wav.
    if (existsSync(text) || !text.endsWith(']')) return [text]
    throw new ConfigError(`${text} is no JSON list of paths: ${(cause as Error).message}`, { argument: text, cause })
  }
  if (Array.isArray(value) && value.every((path) => typeof path === 'string')) return value
  throw new ConfigError(`${text} is no list of paths: each is a text in double quotes`, { argument: text })
}

function pathsOf(list: readonly string[], given: string): string[] {
  const paths = list.map((path) => path.trim()).filter((path) => path !== '')
  if (paths.length > 0) return paths
  throw new ConfigError(given === '' ? 'No sound file was named' : `${given} names no sound file`, { argument: given })
}
