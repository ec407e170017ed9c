import { quoted } from '../../files/byte-source.js'
import type { Fields } from '../fields.js'

const MAX_ID = 2 ** 30

/** `vocab` as an object of tokens and ids. */
export function readVocabulary(fields: Fields): Map<string, number> {
  const vocab = fields.object('vocab')
  const ids = new Map<string, number>()
  for (const token of Object.keys(vocab.values)) {
    const id = vocab.values[token]
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > MAX_ID) {
      throw vocab.error(quoted(token), 'an id', id)
    }
    ids.set(token, id as number)
  }
  return ids
}
