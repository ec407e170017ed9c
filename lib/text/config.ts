import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { quoted } from '../files/byte-source.js'
import { type AddedToken, MAX_ADDED_LENGTH } from './added-tokens.js'
import type { Side } from './encoding.js'
import { Fields } from './fields.js'
import { decodeText, readBytes, readJson } from './files.js'

export const specialNames = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'] as const
export type SpecialName = (typeof specialNames)[number]

/** What stands beside a tokenizer's vocabulary: names of special tokens, and how it is to be used. */
export interface TokenizerConfig {
  /** `LlamaTokenizer`, `RobertaTokenizer` …, without the ending `Fast`. */
  tokenizerClass: string | null
  special: Partial<Record<SpecialName, string>>
  /** Special tokens without a name of their own. */
  additionalSpecial: string[]
  addBosToken: boolean | undefined
  addEosToken: boolean | undefined
  addPrefixSpace: boolean | undefined
  doLowerCase: boolean | undefined
  /** Null where the model sets no limit. */
  modelMaxLength: number | null
  paddingSide: Side
  truncationSide: Side
  cleanUpSpaces: boolean
  /** Whether text after a special token gets a space in front too, as transformers did until 2023. */
  legacy: boolean | undefined
  /** By name; `default` is the usual one. */
  chatTemplates: Record<string, string>
  addedTokens: [number, AddedToken][]
}

export function emptyConfig(): TokenizerConfig {
  return {
    tokenizerClass: null,
    special: {},
    additionalSpecial: [],
    addBosToken: undefined,
    addEosToken: undefined,
    addPrefixSpace: undefined,
    doLowerCase: undefined,
    modelMaxLength: null,
    paddingSide: 'right',
    truncationSide: 'right',
    cleanUpSpaces: false,
    legacy: undefined,
    chatTemplates: Object.create(null),
    addedTokens: [],
  }
}

/** Reads tokenizer_config.json, special_tokens_map.json, added_tokens.json and chat_template.jinja, where they exist. */
export async function readConfig(directory: string): Promise<TokenizerConfig> {
  const config = emptyConfig()
  const read = async (name: string, use: (fields: Fields) => void): Promise<void> => {
    const path = join(directory, name)
    if (existsSync(path)) use(Fields.of(await readJson(path), '', path))
  }
  await read('added_tokens.json', (fields) => {
    for (const name of Object.keys(fields.values)) {
      config.addedTokens.push([fields.whole(name), { ...notSpecial, content: name }])
    }
  })
  await read('special_tokens_map.json', (fields) => readSpecial(fields, config))
  await read('tokenizer_config.json', (fields) => {
    readSpecial(fields, config)
    readRest(fields, config)
  })
  const template = join(directory, 'chat_template.jinja')
  if (existsSync(template)) config.chatTemplates.default = decodeText(await readBytes(template), template)
  markSpecial(config)
  return config
}

const notSpecial = { special: false, singleWord: false, lstrip: false, rstrip: false, normalized: false }

function readSpecial(fields: Fields, config: TokenizerConfig): void {
  for (const name of specialNames) {
    const key = `${name}_token`
    if (fields.has(key)) config.special[name] = tokenText(fields, key)
  }
  for (const key of ['additional_special_tokens', 'extra_special_tokens']) {
    const extra = fields.get(key)
    if (Array.isArray(extra)) {
      for (const [i, token] of extra.entries()) {
        const one = typeof token === 'string' ? { content: token } : token
        const text = tokenText(Fields.of(one, `${key}[${i}]`, fields.file), 'content')
        if (!config.additionalSpecial.includes(text)) config.additionalSpecial.push(text)
      }
    }
  }
}

/** A token's text, or the one inside an object that describes it. */
function tokenText(fields: Fields, key: string): string {
  if (typeof fields.get(key) === 'object') return tokenText(fields.object(key), 'content')
  const text = fields.string(key)
  if (text.length >= 1 && text.length <= MAX_ADDED_LENGTH) return text
  throw fields.error(key, `a text of 1 to ${MAX_ADDED_LENGTH} characters`, `${text.length} characters`)
}

function readRest(fields: Fields, config: TokenizerConfig): void {
  const flag = (name: string): boolean | undefined => (fields.has(name) ? fields.boolean(name) : undefined)
  const side = (name: string): Side => {
    const value = fields.string(name, 'right')
    if (value !== 'left' && value !== 'right') throw fields.error(name, '"left" or "right"', value)
    return value
  }
  if (fields.has('tokenizer_class')) config.tokenizerClass = fields.string('tokenizer_class').replace(/Fast$/, '')
  config.addBosToken = flag('add_bos_token')
  config.addEosToken = flag('add_eos_token')
  config.addPrefixSpace = flag('add_prefix_space')
  config.doLowerCase = flag('do_lower_case')
  config.cleanUpSpaces = flag('clean_up_tokenization_spaces') ?? false
  config.legacy = flag('legacy')
  config.paddingSide = side('padding_side')
  config.truncationSide = side('truncation_side')
  // transformers writes 10^30 for "no limit".
  const length = fields.number('model_max_length', Number.POSITIVE_INFINITY)
  config.modelMaxLength = length > 0 && length < 2 ** 31 ? Math.floor(length) : null
  if (typeof fields.get('chat_template') === 'string') {
    config.chatTemplates.default = fields.string('chat_template')
  } else if (fields.has('chat_template')) {
    for (const named of fields.objects('chat_template')) {
      config.chatTemplates[named.string('name')] = named.string('template')
    }
  }
  if (!fields.has('added_tokens_decoder')) return
  const decoder = fields.object('added_tokens_decoder')
  for (const id of Object.keys(decoder.values)) {
    if (!/^\d{1,9}$/.test(id)) throw decoder.error(quoted(id), 'named by an id', decoder.get(id))
    config.addedTokens.push([Number(id), readAddedToken(decoder.object(id))])
  }
}

/** An entry of `added_tokens` or `added_tokens_decoder`. */
export function readAddedToken(fields: Fields): AddedToken {
  const special = fields.boolean('special', false)
  return {
    content: tokenText(fields, 'content'),
    special,
    singleWord: fields.boolean('single_word', false),
    lstrip: fields.boolean('lstrip', false),
    rstrip: fields.boolean('rstrip', false),
    normalized: fields.boolean('normalized', !special),
  }
}

/** Tokens that have a name are special, whatever added_tokens.json leaves open. */
function markSpecial(config: TokenizerConfig): void {
  const named = new Set([...Object.values(config.special), ...config.additionalSpecial])
  for (const [, token] of config.addedTokens) if (named.has(token.content)) token.special = true
}
