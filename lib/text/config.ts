import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { DataError } from '../base/errors.js'
import { quoted } from '../files/byte-source.js'
import { type AddedToken, MAX_ADDED_LENGTH } from './added-tokens.js'
import { checkKeys, isModelToken } from './config-keys.js'
import type { Side } from './encoding.js'
import { Fields } from './fields.js'
import { decodeText, readBytes, readJson } from './files.js'

export const specialNames = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'] as const
export type SpecialName = (typeof specialNames)[number]

/** Settings of a tokenizer other than its vocabulary: special tokens and defaults. */
export interface TokenizerConfig {
  /** Class in transformers, such as `LlamaTokenizer`, without the suffix `Fast`. */
  tokenizerClass: string | null
  special: Partial<Record<SpecialName, string>>
  /** Special tokens without a role. */
  additionalSpecial: string[]
  addBosToken: boolean | undefined
  addEosToken: boolean | undefined
  addPrefixSpace: boolean | undefined
  doLowerCase: boolean | undefined
  /** Whether to strip accents; for BERT's vocab.txt. */
  stripAccents: boolean | undefined
  /** Whether to split Chinese characters; for BERT's vocab.txt. */
  tokenizeChineseChars: boolean | undefined
  /** Longest input in tokens; null for no limit. */
  modelMaxLength: number | null
  /** Default side of padding; undefined means right. */
  paddingSide: Side | undefined
  /** Default side of truncation; undefined means right. */
  truncationSide: Side | undefined
  cleanUpSpaces: boolean
  /** Whether text after a special token gets a leading space too, as in transformers until 2023. */
  legacy: boolean | undefined
  /** Chat templates by name; `default` is the default one. */
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
    stripAccents: undefined,
    tokenizeChineseChars: undefined,
    modelMaxLength: null,
    paddingSide: undefined,
    truncationSide: undefined,
    cleanUpSpaces: false,
    legacy: undefined,
    chatTemplates: Object.create(null),
    addedTokens: [],
  }
}

/**
 * Read tokenizer_config.json, special_tokens_map.json, added_tokens.json, chat_template.jinja and additional_chat_templates, if
 * they exist. As in transformers, `added_tokens_decoder` in tokenizer_config.json replaces the two other JSON files, and template
 * files replace the templates in tokenizer_config.json.
 */
export async function readConfig(directory: string): Promise<TokenizerConfig> {
  const config = emptyConfig()
  const read = async (name: string): Promise<Fields | undefined> => {
    const path = join(directory, name)
    return existsSync(path) ? Fields.of(await readJson(path), '', path) : undefined
  }
  const settings = await read('tokenizer_config.json')
  if (settings !== undefined) {
    checkKeys(settings)
    readSpecial(settings, config)
    readRest(settings, config)
  }
  if (!settings?.has('added_tokens_decoder')) {
    const map = await read('special_tokens_map.json')
    if (map !== undefined) {
      checkKeys(map)
      readSpecial(map, config)
    }
    const added = await read('added_tokens.json')
    for (const name of Object.keys(added?.values ?? {})) {
      config.addedTokens.push([added!.whole(name), { ...ordinary, content: name }])
    }
  }
  await readTemplates(directory, config)
  markSpecial(config)
  return config
}

const ordinary = { special: false, singleWord: false, lstrip: false, rstrip: false, normalized: true }

const MAX_TEMPLATES = 100

/** Read template files, which replace all templates of tokenizer_config.json. */
async function readTemplates(directory: string, config: TokenizerConfig): Promise<void> {
  const templates: TokenizerConfig['chatTemplates'] = Object.create(null)
  const file = join(directory, 'chat_template.jinja')
  if (existsSync(file)) templates.default = decodeText(await readBytes(file), file)
  const folder = join(directory, 'additional_chat_templates')
  if (existsSync(folder)) {
    const files = (await readdir(folder)).filter((name) => name.endsWith('.jinja')).sort()
    if (files.length > MAX_TEMPLATES) {
      throw new DataError(`${folder}: expected at most ${MAX_TEMPLATES} templates, got ${files.length}`, {
        file: folder,
      })
    }
    for (const name of files) {
      const path = join(folder, name)
      templates[name.slice(0, -'.jinja'.length)] = decodeText(await readBytes(path), path)
    }
  }
  if (Object.keys(templates).length > 0) config.chatTemplates = templates
}

function readSpecial(fields: Fields, config: TokenizerConfig): void {
  for (const name of specialNames) {
    const key = `${name}_token`
    if (fields.has(key)) config.special[name] = tokenText(fields, key)
  }
  const extra = new Set(config.additionalSpecial)
  for (const key of ['additional_special_tokens', 'extra_special_tokens', 'model_specific_special_tokens']) {
    const tokens = fields.get(key)
    if (Array.isArray(tokens)) {
      for (const [i, token] of tokens.entries()) {
        const one = typeof token === 'string' ? { content: token } : token
        extra.add(tokenText(Fields.of(one, `${key}[${i}]`, fields.file), 'content'))
      }
    } else if (tokens !== undefined) {
      const named = fields.object(key)
      for (const name of Object.keys(named.values)) extra.add(tokenText(named, name))
    }
  }
  // Tokens of a kind of model, such as `image_token`. The delimiter of CTC tokenizers is not a special token.
  for (const key of Object.keys(fields.values)) {
    const isNamed = specialNames.some((name) => key === `${name}_token`) || key === 'word_delimiter_token'
    if (!isNamed && isModelToken(key, fields.get(key))) extra.add(tokenText(fields, key))
  }
  config.additionalSpecial = [...extra]
}

/** Read the text of a token, which may be inside an object. */
function tokenText(fields: Fields, key: string): string {
  if (typeof fields.get(key) === 'object') return tokenText(fields.object(key), 'content')
  const text = fields.string(key)
  if (text.length >= 1 && text.length <= MAX_ADDED_LENGTH) return text
  throw fields.error(key, `a text of 1 to ${MAX_ADDED_LENGTH} characters`, `${text.length} characters`)
}

function readRest(fields: Fields, config: TokenizerConfig): void {
  const flag = (name: string): boolean | undefined => (fields.has(name) ? fields.boolean(name) : undefined)
  const side = (name: string): Side | undefined => {
    if (!fields.has(name)) return undefined
    const value = fields.string(name)
    if (value !== 'left' && value !== 'right') throw fields.error(name, '"left" or "right"', value)
    return value
  }
  if (fields.has('tokenizer_class')) config.tokenizerClass = fields.string('tokenizer_class').replace(/Fast$/, '')
  config.addBosToken = flag('add_bos_token')
  config.addEosToken = flag('add_eos_token')
  config.addPrefixSpace = flag('add_prefix_space')
  config.doLowerCase = flag('do_lower_case')
  config.stripAccents = flag('strip_accents')
  config.tokenizeChineseChars = flag('tokenize_chinese_chars')
  config.cleanUpSpaces = flag('clean_up_tokenization_spaces') ?? false
  config.legacy = flag('legacy')
  config.paddingSide = side('padding_side')
  config.truncationSide = side('truncation_side')
  // transformers writes 10^30 for "no limit".
  const key = fields.has('model_max_length') ? 'model_max_length' : 'max_len'
  const length = fields.number(key, Number.POSITIVE_INFINITY)
  config.modelMaxLength = length > 0 && length < 2 ** 31 ? Math.floor(length) : null
  if (typeof fields.get('chat_template') === 'string') {
    config.chatTemplates.default = fields.string('chat_template')
  } else if (fields.has('chat_template') && !Array.isArray(fields.get('chat_template'))) {
    const named = fields.object('chat_template')
    for (const name of Object.keys(named.values)) config.chatTemplates[name] = named.string(name)
  } else if (fields.has('chat_template')) {
    for (const named of fields.objects('chat_template')) {
      config.chatTemplates[named.string('name')] = named.string('template')
    }
  }
  if (!fields.has('added_tokens_decoder')) return
  const decoder = fields.object('added_tokens_decoder')
  for (const id of Object.keys(decoder.values)) {
    if (!/^\d{1,9}$/.test(id)) throw decoder.error(quoted(id), 'an id as the key', decoder.get(id))
    config.addedTokens.push([Number(id), readAddedToken(decoder.object(id))])
  }
}

/** Read an entry of `added_tokens` or `added_tokens_decoder`. */
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

/** Mark tokens with a role as special, which added_tokens.json does not state. */
function markSpecial(config: TokenizerConfig): void {
  const named = new Set([...Object.values(config.special), ...config.additionalSpecial])
  for (const [, token] of config.addedTokens) {
    if (token.special || !named.has(token.content)) continue
    token.special = true
    token.normalized = false
  }
}
