import { listMayGrow } from '../base/heap.js'
import { quoted } from '../files/byte-source.js'
import { byteAlphabet } from './byte-level.js'
import { emptyConfig, type SpecialName, type TokenizerConfig } from './config.js'
import { reportKeys } from './config-keys.js'
import { Fields } from './fields.js'
import { aroundText, type Cutting, mergesSpec, split } from './gguf.js'
import { fromSpec } from './spec.js'
import type { TokenizerParts } from './tokenizer.js'
import type { Spec } from './vocabulary-files.js'

/**
 * Mistral's tekken.json (https://github.com/mistralai/mistral-common): byte sequences in the order in which they merge, as in tiktoken. Their ids
 * follow those of the special tokens.
 */

/** Return whether a JSON file is a tekken.json. */
export const isTekken = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && 'config' in value && 'vocab' in value && Array.isArray(value.vocab)

/** Keys that are read below, or that do not affect ids. */
const KEYS: ReadonlySet<string> = new Set([
  ...['config', 'vocab', 'special_tokens', 'version', 'type', 'image', 'multimodal', 'audio', 'model_settings_builder'],
])

/** Special tokens of files without a list, until version 7. */
const EARLIER = [
  ...['<unk>', '<s>', '</s>', '[INST]', '[/INST]', '[AVAILABLE_TOOLS]', '[/AVAILABLE_TOOLS]', '[TOOL_RESULTS]'],
  ...[
    '[/TOOL_RESULTS]',
    '[TOOL_CALLS]',
    '[IMG]',
    '<pad>',
    '[IMG_BREAK]',
    '[IMG_END]',
    '[PREFIX]',
    '[MIDDLE]',
    '[SUFFIX]',
  ],
  ...['[SYSTEM_PROMPT]', '[/SYSTEM_PROMPT]', '[TOOL_CONTENT]'],
]
const ROLES: readonly [SpecialName, string][] = [
  ['unk', '<unk>'],
  ['bos', '<s>'],
  ['eos', '</s>'],
  ['pad', '<pad>'],
]

/** Limits on the work for hostile files. The published vocabulary has tokens of 76 bytes, 7 million for the sum of squares and 269,443 pairs. */
const MAX_SQUARES = 1 << 26
const MAX_PAIRS = 2_000_000
const MAX_SPECIAL = 65_536

/**
 * Build a tokenizer from the contents of a tekken.json. As in `mistral_common`, of adjacent tokens those merge first whose merged token comes
 * first in the vocabulary, and `<s>` begins a text. Special tokens in texts become their ids, as in transformers; `mistral_common` reads them as text.
 * @throws DataError naming file and entry
 */
export function fromTekken(value: unknown, file: string, base: TokenizerConfig = emptyConfig()): TokenizerParts {
  const fields = Fields.of(value, '', file)
  const settings = fields.object('config')
  const specialCount = settings.whole('default_num_special_tokens')
  const size = settings.whole('default_vocab_size')
  if (specialCount > MAX_SPECIAL) {
    throw settings.error('default_num_special_tokens', `at most ${MAX_SPECIAL}`, specialCount)
  }
  const list = fields.list('vocab')
  if (size < specialCount + 256 || size > specialCount + list.length) {
    const range = `from ${specialCount + 256} to ${specialCount + list.length}, the special tokens and those of the vocabulary`
    throw settings.error('default_vocab_size', range, size)
  }
  const special = specialTokens(fields, specialCount)
  const { vocab, merges } = ranked(fields, list.length, size - specialCount, specialCount)
  const config = { ...base, special: { ...base.special } }
  for (const [role, content] of ROLES) if (special.includes(content)) config.special[role] ??= content
  reportKeys(
    file,
    Object.keys(fields.values).filter((key) => !KEYS.has(key)),
  )
  const cutting: Cutting = {
    preTokenizer: split(settings.string('pattern')),
    ignoresMerges: true,
    ...(config.special.bos !== undefined && { addsBos: true }),
  }
  const around = aroundText(config, special, cutting)
  const added: Spec[] = special.map((content, id) => ({ id, content, special: true, normalized: false }))
  return fromSpec(mergesSpec(cutting, added, vocab, merges, around), file, config, { ranksByResult: true })
}

/** Return the special tokens by their ids. Ids without an entry have the names that `mistral_common` gives them. */
function specialTokens(fields: Fields, count: number): string[] {
  const listed = fields.has('special_tokens')
    ? fields.objects('special_tokens').map((token, rank) => {
        if (token.whole('rank') !== rank) throw token.error('rank', `${rank}, its place in the list`, token.get('rank'))
        return token.string('token_str')
      })
    : EARLIER
  if (listed.length > count) {
    fields.fail(`special_tokens: expected at most ${count}, config.default_num_special_tokens, got ${listed.length}`)
  }
  const tokens = [...listed]
  while (tokens.length < count) tokens.push(`<SPECIAL_${tokens.length}>`)
  const seen = new Set<string>()
  for (const token of tokens) {
    if (token === '' || seen.has(token))
      fields.fail(`special_tokens: expected different texts, got ${quoted(token)} twice`)
    seen.add(token)
  }
  return tokens
}

/** Return ids by byte characters, and all pairs of tokens that make a token, in the order of those. */
function ranked(
  fields: Fields,
  length: number,
  count: number,
  first: number,
): { vocab: Record<string, number>; merges: [string, string][] } {
  const vocab: Record<string, number> = Object.create(null)
  const ids = new Map<string, number>()
  const tokens: string[] = []
  const list = fields.list('vocab')
  let squares = 0
  for (let rank = 0; rank < Math.min(count, length); rank++) {
    const token = Fields.of(list[rank], `vocab[${rank}]`, fields.file)
    if (token.whole('rank') !== rank) throw token.error('rank', `${rank}, its place in the list`, token.get('rank'))
    const encoded = token.string('token_bytes')
    const bytes = Buffer.from(encoded, 'base64')
    squares += bytes.length ** 2
    if (squares > MAX_SQUARES)
      token.fail(`expected shorter tokens: the squares of their bytes are above ${MAX_SQUARES}`)
    if (bytes.length === 0 || bytes.toString('base64') !== encoded) throw token.error('token_bytes', 'base64', encoded)
    if (rank < 256 && (bytes.length > 1 || bytes[0] !== rank)) throw token.error('token_bytes', `byte ${rank}`, encoded)
    const text = Array.from(bytes, (byte) => byteAlphabet[byte]).join('')
    if (ids.has(text)) throw token.error('token_bytes', 'a token that is not there yet', encoded)
    ids.set(text, rank)
    vocab[text] = first + rank
    tokens.push(text)
  }
  const merges: [string, string][] = []
  for (const token of tokens.slice(256)) {
    const pairs: [number, number, string, string][] = []
    for (let i = 1; i < token.length; i++) {
      const left = token.slice(0, i)
      const a = ids.get(left)
      const right = a === undefined ? '' : token.slice(i)
      const b = a === undefined ? undefined : ids.get(right)
      if (b !== undefined) pairs.push([a!, b, left, right])
    }
    // In the order in which transformers saves them.
    for (const [, , left, right] of pairs.sort((a, b) => a[0] - b[0] || a[1] - b[1])) merges.push([left, right])
    if (merges.length > MAX_PAIRS || !listMayGrow(merges.length)) {
      fields.fail(`vocab: expected at most ${MAX_PAIRS} pairs of tokens that make a token, got more`)
    }
  }
  return { vocab, merges }
}
