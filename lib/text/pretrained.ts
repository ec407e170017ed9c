import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { ConfigError } from '../base/errors.js'
import { ggufIn, isGguf } from '../files/gguf/find.js'
import { emptyConfig, readConfig } from './config.js'
import { readBytes, readJson } from './files.js'
import { loadGguf } from './gguf.js'
import { fromSentencePiece } from './sentencepiece/tokenizer.js'
import { fromSpec } from './spec.js'
import { fromTekken, isTekken } from './tekken.js'
import type { TokenizerParts } from './tokenizer.js'
import { fromClipMerges, fromVocabAndMerges, fromVocabText } from './vocabulary-files.js'

const sentencePieceNames = ['tokenizer.model', 'spiece.model', 'sentencepiece.bpe.model', 'sentencepiece.model']

/** Patterns of the tokenizer files of a repository. */
export const TOKENIZER_FILES = [
  ...[
    'tokenizer*',
    'tekken.json',
    'special_tokens_map.json',
    'added_tokens.json',
    'vocab.*',
    'merges.txt',
    'chat_template.jinja',
  ],
  ...sentencePieceNames,
]

export async function loadDirectory(directory: string): Promise<TokenizerParts> {
  if (isGguf(directory)) return loadGguf(directory)
  const path = (name: string): string => join(directory, name)
  const has = (name: string): boolean => existsSync(path(name))
  const config = await readConfig(directory)
  if (has('tokenizer.json')) return fromSpec(await readJson(path('tokenizer.json')), path('tokenizer.json'), config)
  if (has('tekken.json')) return fromTekken(await readJson(path('tekken.json')), path('tekken.json'), config)
  const model = sentencePieceNames.find(has)
  if (model !== undefined) return fromSentencePiece(await readBytes(path(model)), path(model), config)
  if (has('vocab.json') && has('merges.txt')) {
    const spec = await fromVocabAndMerges(path('vocab.json'), path('merges.txt'), config)
    return fromSpec(spec, path('vocab.json'), config)
  }
  if (has('vocab.txt')) {
    return fromSpec(await fromVocabText(path('vocab.txt'), config), path('vocab.txt'), config)
  }
  const gguf = ggufIn(directory)
  if (gguf !== null) return loadGguf(gguf)
  throw new ConfigError(
    `${directory}: expected a tokenizer: tokenizer.json, tekken.json, ${sentencePieceNames.join(', ')}, vocab.json with merges.txt, vocab.txt or *.gguf; found none`,
    { file: directory },
  )
}

export async function loadFile(path: string): Promise<TokenizerParts> {
  if (isGguf(path)) return loadGguf(path)
  const name = basename(path)
  // Mistral's files end in `.model.v3`.
  if (/\.model(\.v\w+)?$/.test(name)) return fromSentencePiece(await readBytes(path), path, null)
  if (name.endsWith('.json')) {
    const value = await readJson(path)
    return isTekken(value) ? fromTekken(value, path) : fromSpec(value, path)
  }
  const config = emptyConfig()
  if (name.startsWith('bpe_simple_vocab')) return fromSpec(await fromClipMerges(path, config), path, config)
  if (name.endsWith('.txt')) return fromSpec(await fromVocabText(path, config), path, config)
  throw new ConfigError(
    `${path}: expected the name of a tokenizer file: *.json, *.model, *.gguf, bpe_simple_vocab_16e6.txt.gz or *.txt`,
    { file: path },
  )
}
