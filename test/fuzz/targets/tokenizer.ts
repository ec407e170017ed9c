import { parseJson } from '../../../lib/files/json/json.js'
import { DecodeStream } from '../../../lib/text/decode-stream.js'
import { fromSpec } from '../../../lib/text/spec.js'
import { fromTekken, isTekken } from '../../../lib/text/tekken.js'
import type { Random } from '../random.js'
import type { FuzzTarget } from './target.js'

const TEXT = ' Héllo, the  wörld \u2581 ﬁ １２ 😀\n<s>[MASK]ing the e\u0301 aab'

const vocab = { a: 0, b: 1, ab: 2, ' ': 3, '<unk>': 4, '\u2581': 5, Ġ: 6, '<0xE2>': 7, '##b': 8, '[MASK]': 9, the: 10 }
const regexes = ['\\s+', 'a|b', '\\p{L}+', '(a+)+$', '', '(?i:THE)', '[^\\S]', 'a{2,}', '(?=a)']
const contents = ['', 'a', 'aa', '\u2581', 'a'.repeat(300), '\ufffd', '😀']

/** A tekken.json of bytes and a few longer tokens. */
function tekken(random?: Random): Uint8Array {
  const longer = ['ab', 'the', ' t', 'aa', ...(random?.chance(0.2) ? ['a'.repeat(3000), 'ab', ''] : [])]
  const tokens = [
    ...Array.from({ length: 256 }, (_, byte) => Buffer.of(byte)),
    ...longer.map((text) => Buffer.from(text)),
  ]
  const special = ['<unk>', '<s>', '</s>', '<s>'].slice(0, random?.chance(0.1) ? 4 : 3)
  const spec = {
    config: {
      pattern: random?.chance(0.5) ? random.pick(regexes) : '\\p{L}+|\\s+|.',
      default_vocab_size: tokens.length + 5 + (random?.chance(0.2) ? random.below(9) - 4 : 0),
      default_num_special_tokens: 5,
    },
    vocab: tokens.map((bytes, rank) => ({ rank, token_bytes: bytes.toString('base64'), token_str: null })),
    special_tokens: special.map((token_str, rank) => ({ rank, token_str, is_control: true })),
  }
  return Buffer.from(JSON.stringify(spec))
}

/** Small tokenizer files of every part, most of them valid. */
function generate(random: Random): Uint8Array {
  if (random.chance(0.1)) return tekken(random)
  const pattern = () => (random.chance(0.5) ? { String: random.pick(contents) } : { Regex: random.pick(regexes) })
  const replace = () => ({ type: 'Replace', pattern: pattern(), content: random.pick(contents) })
  const nested = (one: (depth: number) => object, name: string, depth: number): object =>
    depth < 3 && random.chance(0.3)
      ? { type: 'Sequence', [name]: Array.from({ length: random.below(6) }, () => nested(one, name, depth + 1)) }
      : one(depth)
  const normalizer = () =>
    random.pick<() => object>([
      replace,
      replace,
      () => ({ type: 'Prepend', prepend: random.pick(contents) }),
      () => ({
        type: random.pick(['NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase', 'Nmt', 'StripAccents', 'BertNormalizer']),
      }),
      () => ({ type: 'Strip', strip_left: random.chance(0.5), strip_right: random.chance(0.5) }),
    ])()
  const splitter = () =>
    random.pick<() => object>([
      () => ({
        type: 'Split',
        pattern: pattern(),
        behavior: random.pick(['Removed', 'Isolated', 'MergedWithNext', 'Contiguous']),
        invert: random.chance(0.3),
      }),
      () => ({
        type: random.pick([
          'Whitespace',
          'WhitespaceSplit',
          'BertPreTokenizer',
          'ByteLevel',
          'Metaspace',
          'Digits',
          'Punctuation',
        ]),
      }),
      () => ({ type: 'FixedLength', length: random.below(4) }),
    ])()
  const decoder = () =>
    random.pick<() => object>([
      replace,
      () => ({ type: random.pick(['ByteLevel', 'ByteFallback', 'Fuse', 'Metaspace', 'WordPiece', 'CTC']) }),
      () => ({ type: 'BPEDecoder', suffix: random.pick(contents) }),
      () => ({ type: 'Strip', content: 'a', start: random.below(9), stop: random.below(9) }),
    ])()
  const part = () =>
    random.chance(0.6)
      ? { Sequence: { id: random.pick(['A', 'B']), type_id: random.below(3) } }
      : { SpecialToken: { id: random.pick(['x', 'y']), type_id: random.below(3) } }
  const processor = () => ({
    type: 'TemplateProcessing',
    single: Array.from({ length: random.pick([1, 2, 3, 150]) }, part),
    pair: Array.from({ length: random.below(5) }, part),
    special_tokens: { x: { ids: [9] }, y: { ids: [4, 4] } },
  })
  const model = random.pick<() => object>([
    () => ({
      type: 'BPE',
      vocab,
      merges: ['a b'],
      unk_token: '<unk>',
      byte_fallback: random.chance(0.5),
      fuse_unk: random.chance(0.5),
    }),
    () => ({ type: 'WordPiece', vocab, unk_token: '<unk>' }),
    () => ({ type: 'WordLevel', vocab, unk_token: '<unk>' }),
    () => ({ type: 'Unigram', vocab: Object.keys(vocab).map((text, i) => [text, -i]), unk_id: 4 }),
  ])()
  const maybe = <T>(make: () => T): T | null => (random.chance(0.6) ? make() : null)
  const spec = {
    added_tokens: random.chance(0.5)
      ? [
          {
            id: 9,
            content: '[MASK]',
            special: random.chance(0.5),
            normalized: random.chance(0.5),
            lstrip: random.chance(0.5),
          },
        ]
      : [],
    normalizer: maybe(() => nested(normalizer, 'normalizers', 0)),
    pre_tokenizer: maybe(() => nested(splitter, 'pretokenizers', 0)),
    post_processor: maybe(() => nested(processor, 'processors', 0)),
    decoder: maybe(() => nested(decoder, 'decoders', 0)),
    model,
  }
  return Buffer.from(JSON.stringify(spec))
}

export const target: FuzzTarget = {
  name: 'tokenizer',
  seeds: () =>
    [
      {
        model: { type: 'BPE', vocab, merges: ['a b'] },
        pre_tokenizer: { type: 'ByteLevel' },
        decoder: { type: 'ByteLevel' },
      },
      { model: { type: 'WordPiece', vocab, unk_token: '<unk>' }, normalizer: { type: 'BertNormalizer' } },
    ]
      .map((spec) => Buffer.from(JSON.stringify(spec)) as Uint8Array)
      .concat(tekken()),
  generate,
  words: ['"type":', 'Sequence', 'Replace', 'Regex', '9007199254740993', '1e400', 'null', '[]', '{}', '\\ud800'],
  async run(bytes) {
    const spec = await parseJson([bytes], 'fuzz.json', { depth: 100 })
    const { pipeline, decode, postProcessor } = isTekken(spec)
      ? fromTekken(spec, 'fuzz.json')
      : fromSpec(spec, 'fuzz.json')
    const made = pipeline.run(TEXT)
    postProcessor.process(made, null, true)
    postProcessor.process(made, pipeline.run('a b'), true)
    decode(made.inputIds, true)
    const stream = new DecodeStream(
      (ids) => decode(ids, false),
      () => false,
    )
    for (const id of [...made.inputIds.slice(0, 50), 7, 7, 2 ** 31]) stream.push(id)
    stream.end()
  },
}
