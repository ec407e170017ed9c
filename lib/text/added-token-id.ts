import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { readConfig } from './config.js'
import { readJson } from './files.js'

/** Return the id of an added token of the tokenizer in a folder; null if its files do not define it. */
export async function addedTokenId(directory: string, token: string): Promise<number | null> {
  const { addedTokens } = await readConfig(directory)
  const entry = addedTokens.find(([, { content }]) => content === token)
  if (entry) return entry[0]
  const file = join(directory, 'tokenizer.json')
  if (!existsSync(file)) return null
  const { added_tokens: list } = ((await readJson(file)) ?? {}) as { added_tokens?: unknown }
  const entries = (Array.isArray(list) ? list : []) as ({ id?: unknown; content?: unknown } | null)[]
  const id = entries.find((one) => one?.content === token)?.id
  return typeof id === 'number' ? id : null
}
