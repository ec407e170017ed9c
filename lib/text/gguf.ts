import { isDeepStrictEqual } from 'node:util'
import { ConfigError, DataError } from '../base/errors.js'
import { quoted } from '../files/byte-source.js'
import { type GgufFile, readGguf } from '../files/gguf/gguf.js'
import type { GgufValue } from '../files/gguf/types.js'
import type { AddedToken } from './added-tokens.js'
import { emptyConfig, type SpecialName, type TokenizerConfig } from './config.js'
import { published } from './patterns.js'
import { PieceType } from './sentencepiece/proto.js'
import { fromSentencePiece } from './sentencepiece/tokenizer.js'
import { writeProto } from './sentencepiece/write-proto.js'
import { fromSpec } from './spec.js'
import type { TokenizerParts } from './tokenizer.js'
import { type Spec, splitThenBytes } from './vocabulary-files.js'

/**
 * Tokenizers of GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer): the pieces of a SentencePiece model
 * (`llama`), or tokens and merges (`gpt2`) with a named pre-tokenizer.
 */

const byteLevel = (usesRegex: boolean): Spec => ({
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: usesRegex,
})
const digitsFirst: Spec = {
  type: 'Sequence',
  pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel(true)],
}
export const split = (pattern: string): Spec => splitThenBytes(pattern, 'Isolated', false, false)

export interface Cutting {
  preTokenizer: Spec
  normalizer?: Spec
  /** Whether pre-tokens in the vocabulary are tokens, regardless of the merges. */
  ignoresMerges?: true
  /** Whether to add the BOS token if the file does not state it. */
  addsBos?: true
}

const llama3: Cutting = { preTokenizer: split(published.llama3), ignoresMerges: true, addsBos: true }
const qwen2: Cutting = { preTokenizer: split(published.qwen2), normalizer: { type: 'NFC' } }

/** Pre-tokenizers by `tokenizer.ggml.pre`. Of names with the same pre-tokenizer, the first is written. */
const PRE_TOKENIZERS: Readonly<Record<string, Cutting>> = {
  'gpt-2': { preTokenizer: byteLevel(true) },
  smollm: { preTokenizer: digitsFirst },
  starcoder: { preTokenizer: digitsFirst },
  refact: { preTokenizer: digitsFirst },
  codeshell: { preTokenizer: digitsFirst },
  'llama-bpe': llama3,
  llama3,
  'llama-v3': llama3,
  qwen2,
  'deepseek-r1-qwen': { preTokenizer: split(published.qwen2), addsBos: true },
  tekken: { preTokenizer: split(published.tekken), ignoresMerges: true, addsBos: true },
}

/** Load the tokenizer of a GGUF file. @throws DataError for inconsistent lists, ConfigError for an unknown kind */
export async function loadGguf(path: string): Promise<TokenizerParts> {
  return fromGguf(await readGguf(path))
}

export function fromGguf(file: GgufFile): TokenizerParts {
  const { tokenizer, path } = file
  const kind = tokenizer.model
  if (kind !== 'gpt2' && kind !== 'llama') {
    throw new ConfigError(
      kind === undefined
        ? `${path}: expected a file with a tokenizer, got one without`
        : `${path}: tokenizer.ggml.model: expected 'gpt2' or 'llama', got ${quoted(String(kind))}`,
      { file: path, field: 'tokenizer.ggml.model' },
    )
  }
  checkKeys(file, kind)
  const tokens = texts(file, 'tokens')
  const types = kinds(file, tokens.length)
  const config = configOf(file, tokens)
  return kind === 'gpt2' ? fromMerges(file, tokens, types, config) : fromPieces(file, tokens, types, config)
}

/** Keys with the prefix `tokenizer.` that are read below, or do not affect ids. */
const READ: ReadonlySet<string> = new Set(
  `chat_template chat_templates ggml.add_bos_token ggml.add_eos_token ggml.add_space_prefix ggml.bos_token_id
  ggml.cls_token_id ggml.eom_token_id ggml.eos_token_id ggml.eot_token_id ggml.fim_mid_token_id ggml.fim_pad_token_id
  ggml.fim_pre_token_id ggml.fim_rep_token_id ggml.fim_sep_token_id ggml.fim_suf_token_id ggml.mask_token_id ggml.merges
  ggml.middle_token_id ggml.model ggml.padding_token_id ggml.pre ggml.precompiled_charsmap ggml.prefix_token_id
  ggml.remove_extra_whitespaces ggml.scores ggml.seperator_token_id ggml.suffix_token_id ggml.token_type ggml.tokens
  ggml.unknown_token_id`.split(/\s+/),
)
/** Most unknown keys in a warning. */
const NAMED = 8

/** Check the keys. @throws ConfigError for a setting that tokenizers of this kind do not support */
function checkKeys(file: GgufFile, kind: 'gpt2' | 'llama'): void {
  const { metadata, path } = file
  const refuse = (key: string, expected: string) => {
    const field = `tokenizer.${key}`
    const got = String(metadata[field]).slice(0, 40)
    throw new ConfigError(
      `${path}: ${field}: expected ${expected}, got ${got}. Use the tokenizer.json of the model instead.`,
      { file: path, field },
    )
  }
  const unknown: string[] = []
  for (const [key, value] of Object.entries(metadata)) {
    if (!key.startsWith('tokenizer.')) continue
    const name = key.slice('tokenizer.'.length)
    const isEmpty = typeof value === 'object' && (value as ArrayLike<unknown>).length === 0
    if (name === 'ggml.add_sep_token' && value !== false) refuse(name, 'false')
    else if (name === 'ggml.token_type_count' && (value as number) > 1) refuse(name, '0 or 1')
    else if (kind === 'gpt2' && NOT_BYTES.has(name) && value !== false && !isEmpty)
      refuse(name, 'none, as byte-level BPE has')
    else if (!READ.has(name) && !COUNTED.has(name) && !name.startsWith('chat_template.')) unknown.push(key)
  }
  if (unknown.length === 0) return
  const more = unknown.length > NAMED ? ` and ${unknown.length - NAMED} more` : ''
  process.emitWarning(`${path}: ignored keys: ${unknown.slice(0, NAMED).map(quoted).join(', ')}${more}`, {
    type: 'GgufWarning',
  })
}
const NOT_BYTES: ReadonlySet<string> = new Set([
  'ggml.add_space_prefix',
  'ggml.precompiled_charsmap',
  'ggml.remove_extra_whitespaces',
])
const COUNTED: ReadonlySet<string> = new Set(['ggml.add_sep_token', 'ggml.token_type_count'])

function fail(file: GgufFile, key: string, what: string): never {
  const field = `tokenizer.ggml.${key}`
  throw new DataError(`${file.path}: ${field}: ${what}`, { file: file.path, field })
}

function texts(file: GgufFile, key: string): readonly string[] {
  const list = file.tokenizer[key]
  if (Array.isArray(list) && list.every((one) => typeof one === 'string')) return list
  return fail(file, key, list === undefined ? 'expected a list of strings, got none' : 'expected a list of strings')
}

function kinds(file: GgufFile, count: number): ArrayLike<number> {
  const list = file.tokenizer.token_type
  if (list === undefined) return new Int32Array(count).fill(PieceType.normal)
  const isValid = (list instanceof Int32Array || list instanceof Uint32Array) && list.length === count
  return isValid ? list : fail(file, 'token_type', `expected a list of ${count} numbers, one per token`)
}

const NAMES: readonly [SpecialName, string][] = [
  ['bos', 'bos_token_id'],
  ['eos', 'eos_token_id'],
  ['unk', 'unknown_token_id'],
  ['pad', 'padding_token_id'],
  ['sep', 'seperator_token_id'],
  ['cls', 'cls_token_id'],
  ['mask', 'mask_token_id'],
]

function configOf(file: GgufFile, tokens: readonly string[]): TokenizerConfig {
  const { metadata, tokenizer, architecture } = file
  const config = emptyConfig()
  for (const [name, key] of NAMES) {
    const id = tokenizer[key]
    if (id === undefined) continue
    const token = typeof id === 'number' ? tokens[id] : undefined
    if (token === undefined)
      fail(file, key, `expected an id below ${tokens.length}, the number of tokens, got ${String(id)}`)
    config.special[name] = token
  }
  config.addBosToken = flagOf(file, 'add_bos_token')
  config.addEosToken = flagOf(file, 'add_eos_token')
  const length = metadata[`${architecture}.context_length`]
  if (typeof length === 'number' && length > 0) config.modelMaxLength = length
  for (const [key, value] of Object.entries(metadata)) {
    const name = /^tokenizer\.chat_template(?:\.(.+))?$/.exec(key)
    if (name && typeof value === 'string') config.chatTemplates[name[1] ?? 'default'] = value
  }
  return config
}

function flagOf(file: GgufFile, key: string): boolean | undefined {
  const value = file.tokenizer[key]
  return value === undefined || typeof value === 'boolean' ? value : fail(file, key, 'expected true or false')
}

/** Return the character map. Some programs write signed bytes. */
function charsmapOf(file: GgufFile): Uint8Array {
  const value = file.tokenizer.precompiled_charsmap ?? new Uint8Array(0)
  if (value instanceof Uint8Array || value instanceof Int8Array) return Uint8Array.from(value)
  return Array.isArray(value) && value.length === 0
    ? new Uint8Array(0)
    : fail(file, 'precompiled_charsmap', 'expected a list of bytes')
}

function added(content: string, special: boolean): AddedToken {
  return { content, special, singleWord: false, lstrip: false, rstrip: false, normalized: false }
}

function fromMerges(
  file: GgufFile,
  tokens: readonly string[],
  types: ArrayLike<number>,
  config: TokenizerConfig,
): TokenizerParts {
  const pre = file.tokenizer.pre ?? 'gpt-2'
  const cutting = Object.hasOwn(PRE_TOKENIZERS, String(pre)) ? PRE_TOKENIZERS[pre as string] : undefined
  if (cutting === undefined) {
    const field = 'tokenizer.ggml.pre'
    throw new ConfigError(
      `${file.path}: ${field}: expected one of ${Object.keys(PRE_TOKENIZERS).join(', ')}, got ${quoted(String(pre))}. Use the tokenizer.json of the model instead.`,
      { file: file.path, field },
    )
  }
  const around = aroundText(config, tokens, cutting)
  const vocab: Record<string, number> = Object.create(null)
  const list: Spec[] = []
  for (const [id, content] of tokens.entries()) {
    vocab[content] = id
    const type = types[id]
    if (type !== PieceType.control && type !== PieceType.userDefined && type !== PieceType.unknown) continue
    list.push({ id, content, special: type !== PieceType.userDefined, normalized: false })
  }
  return fromSpec(mergesSpec(cutting, list, vocab, texts(file, 'merges'), around), file.path, config)
}

/** Return a tokenizer.json of byte-level BPE. */
export function mergesSpec(
  { normalizer, preTokenizer, ignoresMerges }: Cutting,
  addedTokens: readonly Spec[],
  vocab: Readonly<Record<string, number>>,
  merges: readonly unknown[],
  around: Spec | undefined,
): Spec {
  return {
    version: '1.0',
    added_tokens: addedTokens,
    normalizer: normalizer ?? null,
    pre_tokenizer: preTokenizer,
    post_processor: around ? { type: 'Sequence', processors: [offsetsAsTheyAre, around] } : offsetsAsTheyAre,
    decoder: { ...byteLevel(true), add_prefix_space: true },
    model: {
      type: 'BPE',
      continuing_subword_prefix: '',
      end_of_word_suffix: '',
      fuse_unk: false,
      ignore_merges: ignoresMerges ?? false,
      vocab,
      merges,
    },
  }
}

const offsetsAsTheyAre: Spec = { ...byteLevel(true), trim_offsets: false }

/**
 * Return the post-processor that adds the BOS and EOS tokens, if the file requires them. `tokens`: by their ids. It is written into tokenizer.json, because
 * transformers ignores `add_bos_token` of tokenizer_config.json if there is a post-processor.
 */
export function aroundText(config: TokenizerConfig, tokens: readonly string[], cutting: Cutting): Spec | undefined {
  const { addBosToken = cutting.addsBos, addEosToken, special } = config
  config.addBosToken = undefined
  config.addEosToken = undefined
  const bos = addBosToken ? special.bos : undefined
  const eos = addEosToken ? special.eos : undefined
  if (bos === undefined && eos === undefined) return undefined
  const token = (content: string | undefined, type: number) =>
    content === undefined ? [] : [{ SpecialToken: { id: content, type_id: type } }]
  const text = (id: 'A' | 'B', type: number) => [
    ...token(bos, type),
    { Sequence: { id, type_id: type } },
    ...token(eos, type),
  ]
  const known = [bos, eos].flatMap((content) =>
    content === undefined
      ? []
      : [[content, { id: content, ids: [tokens.indexOf(content)], tokens: [content] }] as const],
  )
  return {
    type: 'TemplateProcessing',
    single: text('A', 0),
    pair: [...text('A', 0), ...text('B', 1)],
    special_tokens: Object.fromEntries(known),
  }
}

function fromPieces(
  file: GgufFile,
  tokens: readonly string[],
  types: ArrayLike<number>,
  config: TokenizerConfig,
): TokenizerParts {
  const { tokenizer } = file
  const { scores } = tokenizer
  if (!(scores instanceof Float32Array) || scores.length !== tokens.length) {
    fail(file, 'scores', `expected a list of ${tokens.length} numbers, one per token`)
  }
  // As in transformers, special and added tokens are matched in texts; plain control pieces are not.
  for (const [id, content] of tokens.entries()) {
    const type = types[id]
    if (type === PieceType.control || type === PieceType.unknown) config.addedTokens.push([id, added(content, true)])
  }
  const idOf = (key: string): number => (typeof tokenizer[key] === 'number' ? tokenizer[key] : -1)
  const bytes = writeProto({
    pieces: tokens,
    scores: scores as Float32Array,
    // Unused tokens only fill the vocabulary. SentencePiece would split unused pieces again, so they become control pieces.
    types: Array.from(types, (type) => (type === PieceType.unused ? PieceType.control : type)),
    algorithm: 'bpe',
    byteFallback: Array.from(types).includes(PieceType.byte),
    addDummyPrefix: flagOf(file, 'add_space_prefix') !== false,
    removeExtraWhitespaces: flagOf(file, 'remove_extra_whitespaces') === true,
    charsmap: charsmapOf(file),
    bosId: idOf('bos_token_id'),
    eosId: idOf('eos_token_id'),
    padId: idOf('padding_token_id'),
    unkId: Array.from(types).indexOf(PieceType.unknown),
  })
  return fromSentencePiece(bytes, file.path, config)
}

/** Return the metadata that `saveGguf` writes for a tokenizer, so that llama.cpp gives the same tokens. */
export function ggufOf(parts: TokenizerParts, rows: number): Record<string, GgufValue> {
  const { addedTokens, model } = parts.pipeline
  const tokens = Array.from({ length: rows }, (_, id) => `[PAD${id}]`)
  const types = new Int32Array(rows).fill(PieceType.unused)
  const source = parts.source
  if (source === undefined) {
    throw new ConfigError(
      `saveGguf: tokenizer: expected byte-level BPE or SentencePiece, got ${model.kind}, which GGUF files do not support.`,
    )
  }
  const put = (content: string, id: number, type: number): void => {
    if (id >= rows)
      throw new ConfigError(
        `saveGguf: tokenizer: expected ids below ${rows}, the rows of the embedding, got ${id} for ${quoted(content)}.`,
      )
    tokens[id] = content
    types[id] = type
  }
  for (const [content, id] of model.entries()) put(content, id, PieceType.normal)
  if (source.kind === 'sentencepiece') {
    for (const [id, type] of source.proto.types.entries()) types[id] = type
  }
  for (const [id, { content, special }] of addedTokens.entries()) {
    if (types[id] === PieceType.unknown) continue
    put(content, id, special ? PieceType.control : PieceType.userDefined)
  }
  const { config } = parts
  const result: Record<string, GgufValue> = {
    'tokenizer.ggml.model': source.kind === 'sentencepiece' ? 'llama' : 'gpt2',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': types,
  }
  const idOf = (content: string): number | undefined => addedTokens.id(content) ?? model.tokenToId(content)
  for (const [name, key] of NAMES) {
    const id = config.special[name] === undefined ? undefined : idOf(config.special[name])
    if (id !== undefined) result[`tokenizer.ggml.${key}`] = id
  }
  for (const [name, template] of Object.entries(config.chatTemplates)) {
    result[name === 'default' ? 'tokenizer.chat_template' : `tokenizer.chat_template.${name}`] = template
  }
  if (source.kind === 'sentencepiece') {
    const scores = new Float32Array(rows).fill(-1e4)
    scores.set(source.proto.scores)
    result['tokenizer.ggml.scores'] = scores
    const { addDummyPrefix, removeExtraWhitespaces, charsmap } = source.proto.normalizer
    result['tokenizer.ggml.add_space_prefix'] = addDummyPrefix
    if (removeExtraWhitespaces) result['tokenizer.ggml.remove_extra_whitespaces'] = true
    if (charsmap.length > 0) result['tokenizer.ggml.precompiled_charsmap'] = Uint8Array.from(charsmap)
    return result
  }
  result['tokenizer.ggml.pre'] = nameOf(source.spec)
  result['tokenizer.ggml.merges'] = source.merges().map(([a, b]) => `${a} ${b}`)
  return result
}

/** Return llama.cpp's name of the pre-tokenizer. @throws ConfigError without one */
function nameOf(spec: Spec): string {
  const canonical = (value: unknown): unknown =>
    typeof value !== 'object' || value === null
      ? value
      : Array.isArray(value)
        ? value.map(canonical)
        : Object.fromEntries(
            Object.entries(value)
              .filter(([key]) => key !== 'trim_offsets')
              .sort(([a], [b]) => (a < b ? -1 : 1))
              .map(([key, one]) => [key, canonical(one)]),
          )
  const wanted = canonical(spec.pre_tokenizer)
  const match = Object.entries(PRE_TOKENIZERS).find(([, { preTokenizer }]) =>
    isDeepStrictEqual(canonical(preTokenizer), wanted),
  )
  if (match !== undefined) return match[0]
  throw new ConfigError(
    `saveGguf: tokenizer: expected a pre-tokenizer of llama.cpp (${Object.keys(PRE_TOKENIZERS).join(', ')}), got ${quoted(JSON.stringify(spec.pre_tokenizer))}.`,
    { argument: 'tokenizer' },
  )
}
