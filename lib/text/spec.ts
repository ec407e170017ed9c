import { quoted } from '../files/byte-source.js'
import { type AddedToken, AddedTokens } from './added-tokens.js'
import { emptyConfig, readAddedToken, type SpecialName, specialNames, type TokenizerConfig } from './config.js'
import { reportKeys } from './config-keys.js'
import { cleanUpSpaces, readDecoder } from './decoders.js'
import type { Side } from './encoding.js'
import { Fields } from './fields.js'
import { Bpe, readBpe } from './models/bpe.js'
import type { TokenModel } from './models/model.js'
import { readUnigram } from './models/unigram.js'
import { readWordLevel, readWordPiece } from './models/words.js'
import { readNormalizer } from './normalizers.js'
import { Pipeline } from './pipeline.js'
import { joinOnly, type PostProcessor, readPostProcessor, template } from './postprocessors.js'
import { endsInByteLevel, readPreTokenizer } from './pretokenizers.js'
import { specSaver } from './save.js'
import type { TokenizerParts } from './tokenizer.js'

/**
 * Build a tokenizer from the contents of a tokenizer.json. `ranksByResult`: {@link Bpe.rankByResult}.
 *
 * Of `@huggingface/tokenizers` 0.2.0 only the translation of regular expressions is used (see patterns.ts). Its ids are right for
 * the published files of the tests, but it has no offsets and word ids, does not support `single_word`, and takes 2.5 times as
 * long as the Python package for RoBERTa.
 */
export function fromSpec(
  spec: unknown,
  file: string,
  base: TokenizerConfig = emptyConfig(),
  { ranksByResult = false }: { ranksByResult?: boolean } = {},
): TokenizerParts {
  const fields = Fields.of(spec, '', file)
  const part = (name: string): Fields | undefined => (fields.has(name) ? fields.object(name) : undefined)
  const model = readModel(fields.object('model'))
  const splitter = part('pre_tokenizer')
  const rawBytes = model instanceof Bpe && endsInByteLevel(splitter)
  if (model instanceof Bpe) {
    model.byteLevel = rawBytes
    if (ranksByResult) model.rankByResult()
  }
  const normalizerFields = part('normalizer')
  const normalizer = normalizerFields === undefined ? null : readNormalizer(normalizerFields)
  const preTokenizer = splitter === undefined ? null : readPreTokenizer(splitter, rawBytes)

  const addedTokens = new AddedTokens(normalizer)
  for (const token of fields.has('added_tokens') ? fields.objects('added_tokens') : []) {
    addedTokens.add(token.whole('id'), readAddedToken(token))
  }
  addConfigured(addedTokens, model, base)
  const named = Object.keys(base.special).length > 0
  const config = { ...base, special: named ? { ...base.special } : conventional(addedTokens) }
  reportKeys(
    file,
    Object.keys(fields.values).filter((key) => !parts.has(key)),
  )
  // As in transformers, only the sides of padding and truncation are used, as defaults of calls.
  config.paddingSide ??= sideOf(part('padding'))
  config.truncationSide ??= sideOf(part('truncation'))

  const lookup = {
    idToToken: (id: number) => addedTokens.get(id)?.content ?? model.idToToken(id),
    isAdded: (id: number) => addedTokens.get(id) !== undefined,
  }
  const post = part('post_processor')
  const stored = post === undefined ? joinOnly : readPostProcessor(post, lookup)
  const tokenId = (content: string): number | undefined => addedTokens.id(content) ?? model.tokenToId(content)
  const decoderFields = part('decoder')
  const decoder = decoderFields && readDecoder(decoderFields)
  const suffix = rawBytes && model instanceof Bpe ? model.options.suffix : ''
  return {
    pipeline: new Pipeline(addedTokens, normalizer, preTokenizer, model),
    postProcessor: flagged(config, tokenId) ?? stored,
    config,
    decode(ids, cleansUp) {
      const tokens = ids
        .map((id) => addedTokens.spelled(id) ?? model.idToToken(id))
        .filter((token) => token !== undefined)
      let text = decoder === undefined ? tokens.join(' ') : decoder(tokens).join('')
      if (suffix !== '') text = text.replaceAll(suffix, ' ').trim()
      return cleansUp ? cleanUpSpaces(text) : text
    },
    save: specSaver(fields, model),
    ...(rawBytes &&
      model instanceof Bpe && { source: { kind: 'bytes', spec: fields.values, merges: () => model.pairs() } }),
  }
}

/** Known keys of a tokenizer.json. */
const parts = new Set([
  ...[
    'version',
    'truncation',
    'padding',
    'added_tokens',
    'normalizer',
    'pre_tokenizer',
    'post_processor',
    'decoder',
    'model',
  ],
])

function sideOf(fields: Fields | undefined): Side | undefined {
  if (!fields?.has('direction')) return undefined
  const side = fields.string('direction')
  if (side !== 'Left' && side !== 'Right') throw fields.error('direction', '"Left" or "Right"', side)
  return side === 'Left' ? 'left' : 'right'
}

function readModel(fields: Fields): TokenModel {
  // Files from before 2020 have no type.
  const type = fields.string('type', fields.has('merges') ? 'BPE' : 'WordPiece')
  if (type === 'BPE') return readBpe(fields)
  if (type === 'Unigram') return readUnigram(fields)
  if (type === 'WordPiece') return readWordPiece(fields)
  if (type === 'WordLevel') return readWordLevel(fields)
  return fields.fail(`expected BPE, Unigram, WordPiece or WordLevel as type, got ${quoted(type)}`)
}

/** Add tokens that only the configuration defines, with its ids or the next free ones. */
export function addConfigured(addedTokens: AddedTokens, model: TokenModel, config: TokenizerConfig): void {
  for (const [id, token] of config.addedTokens) {
    if (addedTokens.id(token.content) === undefined) addedTokens.add(model.tokenToId(token.content) ?? id, token)
  }
  for (const content of [...Object.values(config.special), ...config.additionalSpecial]) {
    if (addedTokens.id(content) !== undefined) continue
    const token: AddedToken = {
      content,
      special: true,
      singleWord: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
    }
    addedTokens.add(model.tokenToId(content) ?? nextId(addedTokens, model), token)
  }
}

/** Return the id of the next new token: the highest id + 1. */
export function nextId(addedTokens: AddedTokens, model: TokenModel): number {
  return Math.max(model.size, addedTokens.next)
}

const names: Record<SpecialName, readonly string[]> = {
  bos: ['<s>', '<|startoftext|>'],
  eos: ['</s>', '<|endoftext|>'],
  unk: ['<unk>', '[UNK]'],
  sep: ['</s>', '[SEP]'],
  pad: ['<pad>', '[PAD]'],
  cls: ['<s>', '[CLS]'],
  mask: ['<mask>', '[MASK]'],
}

/** Find special tokens by their usual names, if no other file defines them. */
function conventional(addedTokens: AddedTokens): Partial<Record<SpecialName, string>> {
  const special: Partial<Record<SpecialName, string>> = {}
  for (const name of specialNames) {
    const token = names[name].find((content) => addedTokens.isSpecial(addedTokens.id(content) ?? -1))
    if (token !== undefined) special[name] = token
  }
  return special
}

/** Return the post-processor of `add_bos_token` and `add_eos_token`, which override that of the file. */
export function flagged(
  config: TokenizerConfig,
  tokenId: (content: string) => number | undefined,
): PostProcessor | undefined {
  if (config.addBosToken === undefined && config.addEosToken === undefined) return undefined
  const special = (wanted: boolean | undefined, content: string | undefined): { ids: number[] }[] => {
    const id = wanted && content !== undefined ? tokenId(content) : undefined
    return id === undefined ? [] : [{ ids: [id] }]
  }
  const bos = special(config.addBosToken, config.special.bos)
  const eos = special(config.addEosToken, config.special.eos)
  const ofType1 = (parts: { ids: number[] }[]): [{ ids: number[] }, number][] => parts.map((part) => [part, 1])
  return template([...bos, 'A', ...eos], [...bos, 'A', ...eos, ...ofType1(bos), ['B', 1], ...ofType1(eos)])
}
