import { ConfigError } from '../../base/errors.js'
import { AddedTokens } from '../added-tokens.js'
import { limitedGrowth } from '../aligned.js'
import { emptyConfig, type TokenizerConfig } from '../config.js'
import { cleanUpSpaces } from '../decoders.js'
import type { Normalizer } from '../normalizers.js'
import { Pipeline } from '../pipeline.js'
import { joinOnly } from '../postprocessors.js'
import { sentencePieceSaver } from '../save.js'
import { addConfigured, flagged } from '../spec.js'
import type { TokenizerParts } from '../tokenizer.js'
import { decodePieces } from './decode.js'
import { SentencePieceModel } from './model.js'
import { SentencePieceNormalizer } from './normalize.js'
import { readProto } from './proto.js'

/**
 * A tokenizer from the bytes of a `.model`.
 *
 * Without a configuration it gives what SentencePiece's own library gives: no token is put around, and control tokens in
 * the text are text. With one, special tokens are found in the text and put around it as transformers' slow tokenizers do.
 */
export function fromSentencePiece(bytes: Uint8Array, file: string, given: TokenizerConfig | null): TokenizerParts {
  const proto = readProto(bytes, file)
  const model = new SentencePieceModel(proto, file)
  const pieces = new SentencePieceNormalizer(proto.normalizer, proto.whitespaceIsSuffix, model.symbols, file)
  const config = given === null ? emptyConfig() : withDefaults(given, model)
  // Since transformers' "legacy: false", only text at the very start gets the space in front.
  const everywhere = config.legacy ?? true
  const normalizer: Normalizer = (source) =>
    limitedGrowth(file, source, (text) =>
      pieces.normalize(text, proto.normalizer.addDummyPrefix && (everywhere || text.shift === 0)),
    )

  const addedTokens = new AddedTokens('raw')
  addConfigured(addedTokens, model, config)
  nameOwn(config, model)
  const tokenId = (content: string): number | undefined => addedTokens.id(content) ?? model.tokenToId(content)
  return {
    pipeline: new Pipeline(addedTokens, normalizer, null, model),
    postProcessor: flagged(config, tokenId) ?? joinOnly,
    config,
    decode(ids, cleansUp) {
      const text = decodePieces(proto, ids, (id) => addedTokens.get(id)?.content)
      return cleansUp ? cleanUpSpaces(text) : text
    },
    save: sentencePieceSaver(bytes),
    ...(proto.algorithm === 'bpe' && { source: { kind: 'sentencepiece', proto } }),
  }
}

/** What the classes of transformers put around a text. */
const around: Record<string, { bos: boolean; eos: boolean }> = {
  LlamaTokenizer: { bos: true, eos: false },
  CodeLlamaTokenizer: { bos: true, eos: false },
  MistralTokenizer: { bos: true, eos: false },
  GemmaTokenizer: { bos: true, eos: false },
  // InternLM2's own, which comes with its files.
  InternLM2Tokenizer: { bos: true, eos: false },
  T5Tokenizer: { bos: false, eos: true },
}

/** Their ids are not those of the `.model`. */
const renumbered = [
  'XLMRobertaTokenizer',
  'CamembertTokenizer',
  'BarthezTokenizer',
  'MBartTokenizer',
  'MBart50Tokenizer',
  'NllbTokenizer',
  'PegasusTokenizer',
  'XGLMTokenizer',
  'SeamlessM4TTokenizer',
  'DebertaV2Tokenizer',
  'AlbertTokenizer',
  'XLNetTokenizer',
  'BigBirdTokenizer',
  'FNetTokenizer',
  'RemBertTokenizer',
]

function withDefaults(given: TokenizerConfig, model: SentencePieceModel): TokenizerConfig {
  const { tokenizerClass } = given
  if (tokenizerClass !== null && renumbered.includes(tokenizerClass)) {
    throw new ConfigError(
      `a ${tokenizerClass} puts other ids or tokens in place of its SentencePiece model's; a tokenizer.json would say which`,
      { tokenizerClass },
    )
  }
  const usual = around[tokenizerClass ?? 'LlamaTokenizer'] ?? { bos: false, eos: false }
  const config = {
    ...given,
    special: { ...given.special },
    addBosToken: given.addBosToken ?? usual.bos,
    addEosToken: given.addEosToken ?? usual.eos,
  }
  nameOwn(config, model)
  return config
}

/** The trainer's own special tokens, where nothing else names them. */
function nameOwn(config: TokenizerConfig, { proto }: SentencePieceModel): void {
  for (const [name, id] of [
    ['bos', proto.bosId],
    ['eos', proto.eosId],
    ['pad', proto.padId],
    ['unk', proto.unkId],
  ] as const) {
    const piece = proto.pieces[id]
    if (piece !== undefined) config.special[name] ??= piece
  }
}
