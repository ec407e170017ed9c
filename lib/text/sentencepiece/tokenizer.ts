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
 * Create a tokenizer from the bytes of a `.model`.
 *
 * Without a configuration it equals the SentencePiece library: no special tokens are added, and control tokens in the text are plain
 * text. With one, special tokens are matched in the text and added, as in transformers' slow tokenizers.
 */
export function fromSentencePiece(bytes: Uint8Array, file: string, base: TokenizerConfig | null): TokenizerParts {
  const proto = readProto(bytes, file)
  const model = new SentencePieceModel(proto, file)
  const pieces = new SentencePieceNormalizer(proto.normalizer, proto.whitespaceIsSuffix, model.symbols, file)
  const config = base === null ? emptyConfig() : withDefaults(base, model)
  // With transformers' "legacy: false", only the start of the text gets a leading space.
  const everywhere = config.legacy ?? true
  const normalizer: Normalizer = (source) =>
    limitedGrowth(file, source, (text) =>
      pieces.normalize(text, proto.normalizer.addDummyPrefix && (everywhere || text.shift === 0)),
    )

  const addedTokens = new AddedTokens('raw')
  addConfigured(addedTokens, model, config)
  nameSpecial(config, model)
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

/** Special tokens that the classes of transformers add. */
const around: Record<string, { bos: boolean; eos: boolean }> = {
  LlamaTokenizer: { bos: true, eos: false },
  CodeLlamaTokenizer: { bos: true, eos: false },
  MistralTokenizer: { bos: true, eos: false },
  GemmaTokenizer: { bos: true, eos: false },
  // InternLM2's class, which is part of its repository.
  InternLM2Tokenizer: { bos: true, eos: false },
  T5Tokenizer: { bos: false, eos: true },
}

/** Classes whose ids differ from those of the `.model`. */
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

function withDefaults(base: TokenizerConfig, model: SentencePieceModel): TokenizerConfig {
  const { tokenizerClass } = base
  if (tokenizerClass !== null && renumbered.includes(tokenizerClass)) {
    throw new ConfigError(
      `tokenizer_class: expected a class that uses the ids of its SentencePiece model, got ${tokenizerClass}. Use the tokenizer.json of the model.`,
      { tokenizerClass },
    )
  }
  const usual = around[tokenizerClass ?? 'LlamaTokenizer'] ?? { bos: false, eos: false }
  const config = {
    ...base,
    special: { ...base.special },
    addBosToken: base.addBosToken ?? usual.bos,
    addEosToken: base.addEosToken ?? usual.eos,
  }
  nameSpecial(config, model)
  return config
}

/** Return the special tokens of the trainer settings, if nothing else defines them. */
function nameSpecial(config: TokenizerConfig, { proto }: SentencePieceModel): void {
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
