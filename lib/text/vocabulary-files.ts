import { gunzipSync } from 'node:zlib'
import { ConfigError, DataError } from '../base/errors.js'
import { quoted } from '../files/byte-source.js'
import { byteAlphabet } from './byte-level.js'
import type { TokenizerConfig } from './config.js'
import { Fields } from './fields.js'
import { decodeText, readBytes, readJson } from './files.js'
import { published } from './patterns.js'

/** The contents of a tokenizer.json, converted from older files. */
export type Spec = Record<string, unknown>

type Style = 'gpt2' | 'roberta' | 'qwen2' | 'clip'

const styles: Record<string, Style> = {
  GPT2Tokenizer: 'gpt2',
  CodeGenTokenizer: 'gpt2',
  RobertaTokenizer: 'roberta',
  BartTokenizer: 'roberta',
  LongformerTokenizer: 'roberta',
  Qwen2Tokenizer: 'qwen2',
  CLIPTokenizer: 'clip',
  LanguageBindVideoTokenizer: 'clip',
  LanguageBindAudioTokenizer: 'clip',
  LanguageBindImageTokenizer: 'clip',
}

/**
 * Convert vocab.json and merges.txt of GPT-2, RoBERTa, Qwen2 and CLIP. Without a tokenizer class the style is CLIP's if tokens end
 * in `</w>`, RoBERTa's if `<s>` and `</s>` are entries, else GPT-2's.
 */
export async function fromVocabAndMerges(
  vocabPath: string,
  mergesPath: string,
  config: TokenizerConfig,
): Promise<Spec> {
  const vocab = Fields.of(await readJson(vocabPath), '', vocabPath).values as Record<string, number>
  const merges = mergeLines(decodeText(await readBytes(mergesPath), mergesPath))
  return bytePairSpec(styleOf(config, vocab), vocab, merges, config)
}

function styleOf(config: TokenizerConfig, vocab: Readonly<Record<string, number>>): Style {
  const { tokenizerClass } = config
  if (tokenizerClass !== null && tokenizerClass !== 'PreTrainedTokenizer') {
    if (Object.hasOwn(styles, tokenizerClass)) return styles[tokenizerClass]!
    throw new ConfigError(
      `tokenizer_class: expected a class of GPT-2, RoBERTa, Qwen2 or CLIP for vocab.json and merges.txt, got ${tokenizerClass}. Use the tokenizer.json of the model.`,
      { tokenizerClass },
    )
  }
  if (Object.hasOwn(vocab, 'a</w>')) return 'clip'
  return Object.hasOwn(vocab, '<s>') && Object.hasOwn(vocab, '</s>') ? 'roberta' : 'gpt2'
}

function mergeLines(text: string): string[] {
  return text.split('\n').filter((line, i) => !(i === 0 && line.startsWith('#version')) && line.trim() !== '')
}

const defaults: Record<Style, TokenizerConfig['special']> = {
  gpt2: { bos: '<|endoftext|>', eos: '<|endoftext|>', unk: '<|endoftext|>' },
  roberta: { bos: '<s>', eos: '</s>', unk: '<unk>', sep: '</s>', pad: '<pad>', cls: '<s>', mask: '<mask>' },
  qwen2: { eos: '<|endoftext|>', unk: '<|endoftext|>', pad: '<|endoftext|>' },
  clip: { bos: '<|startoftext|>', eos: '<|endoftext|>', unk: '<|endoftext|>', pad: '<|endoftext|>' },
}

function bytePairSpec(
  style: Style,
  vocab: Readonly<Record<string, number>>,
  merges: readonly string[],
  config: TokenizerConfig,
): Spec {
  config.special = { ...defaults[style], ...config.special }
  const { special } = config
  const prefixSpace = config.addPrefixSpace ?? false
  const byteLevel = { type: 'ByteLevel', add_prefix_space: prefixSpace, trim_offsets: true, use_regex: true }
  const spec: Spec = {
    version: '1.0',
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      unk_token: style === 'clip' ? special.unk : null,
      continuing_subword_prefix: '',
      end_of_word_suffix: style === 'clip' ? '</w>' : '',
      fuse_unk: false,
      vocab,
      merges,
    },
  }
  const around = (sep: string, cls: string, trim: boolean): unknown => {
    const pair = (content: string): [string, number] => {
      if (Object.hasOwn(vocab, content)) return [content, vocab[content]!]
      throw new DataError(`vocab.json: expected the special token ${quoted(content)}, found none`, { token: content })
    }
    return {
      type: 'RobertaProcessing',
      sep: pair(sep),
      cls: pair(cls),
      trim_offsets: trim,
      add_prefix_space: prefixSpace,
    }
  }
  if (style === 'roberta') {
    spec.post_processor = around(special.sep!, special.cls!, true)
    spec.added_tokens = [{ id: vocab[special.mask!], content: special.mask, lstrip: true, special: true }].filter(
      ({ id }) => id !== undefined,
    )
  } else if (style === 'qwen2') {
    spec.normalizer = { type: 'NFC' }
    spec.pre_tokenizer = splitThenBytes(published.qwen2, 'Isolated', false, false)
  } else if (style === 'clip') {
    const steps = [
      { type: 'NFC' },
      { type: 'Replace', pattern: { Regex: published.spaces }, content: ' ' },
      { type: 'Lowercase' },
    ]
    spec.normalizer = { type: 'Sequence', normalizers: steps }
    spec.pre_tokenizer = splitThenBytes(published.clip, 'Removed', true, true)
    spec.post_processor = around(special.eos!, special.bos!, false)
  } else {
    spec.post_processor = { ...byteLevel, trim_offsets: false }
  }
  return spec
}

export function splitThenBytes(pattern: string, behavior: string, invert: boolean, usesRegex: boolean): Spec {
  return {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: pattern }, behavior, invert },
      { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: usesRegex },
    ],
  }
}

const MAX_UNPACKED = 64 << 20
const CLIP_SIZE = 49408

/**
 * Convert OpenAI's `bpe_simple_vocab_16e6.txt.gz` (https://github.com/openai/CLIP): merges, which determine the vocabulary of CLIP.
 * Text is cleaned as in transformers' CLIPTokenizer: NFC, white space to single spaces, lower case.
 */
export async function fromClipMerges(path: string, config: TokenizerConfig): Promise<Spec> {
  let bytes: Buffer = await readBytes(path)
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    try {
      bytes = gunzipSync(bytes, { maxOutputLength: MAX_UNPACKED })
    } catch (cause) {
      throw new DataError(`${path}: cannot be unpacked: ${(cause as Error).message}`, { file: path, cause })
    }
  }
  // The file has more merges than CLIP uses.
  const merges = decodeText(bytes, path)
    .split('\n')
    .slice(1, CLIP_SIZE - 512 - 2 + 1)
    .filter((line) => line.trim() !== '')
  const vocab: Record<string, number> = Object.create(null)
  // CLIP orders bytes by their characters.
  const alphabet = [...byteAlphabet].sort()
  const entries = [...alphabet, ...alphabet.map((character) => `${character}</w>`)]
  for (const merge of merges) entries.push(merge.replace(' ', ''))
  for (const [id, token] of [...entries, '<|startoftext|>', '<|endoftext|>'].entries()) vocab[token] = id
  config.tokenizerClass ??= 'CLIPTokenizer'
  config.modelMaxLength ??= 77
  return bytePairSpec('clip', vocab, merges, config)
}

/** Convert vocab.txt: BERT's WordPiece vocabulary with one entry per line. */
export async function fromVocabText(path: string, config: TokenizerConfig): Promise<Spec> {
  const lines = decodeText(await readBytes(path), path).split(/\r?\n/)
  if (lines.at(-1) === '') lines.pop()
  const vocab: Record<string, number> = Object.create(null)
  for (const [id, line] of lines.entries()) vocab[line] = id
  config.special = {
    unk: '[UNK]',
    sep: '[SEP]',
    pad: '[PAD]',
    cls: '[CLS]',
    mask: '[MASK]',
    ...config.special,
  }
  const pair = (name: 'sep' | 'cls'): [string, number] => {
    const content = config.special[name]!
    const id = vocab[content]
    if (id === undefined)
      throw new DataError(`${path}: expected the entry ${quoted(content)}, found none`, { file: path })
    return [content, id]
  }
  const lowercase = config.doLowerCase ?? true
  return {
    version: '1.0',
    added_tokens: [],
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: config.tokenizeChineseChars ?? true,
      strip_accents: config.stripAccents ?? null,
      lowercase,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: { type: 'BertProcessing', sep: pair('sep'), cls: pair('cls') },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: {
      type: 'WordPiece',
      unk_token: config.special.unk,
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
      vocab,
    },
  }
}
