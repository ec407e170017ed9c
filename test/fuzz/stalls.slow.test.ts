import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { nearest } from '../../lib/base/words.js'
import { parseCarefully } from '../../lib/files/json/parse.js'
import { parseFloatText, parseInteger } from '../../lib/files/pickle/text.js'
import { parseTextGrid } from '../../lib/files/textgrid.js'
import { ConfigError, DecoderLM, setNumThreads, Tokenizer, VoxtorchError } from '../../lib/index.js'
import { untilStop } from '../../lib/kit/chat.js'
import { rougeL } from '../../lib/kit/rouge-l.js'
import type { ChatModel } from '../../lib/serve/index.js'
import { type Served, serve, TextChat } from '../../lib/serve/index.js'
import { taskQuestion } from '../../lib/systems/emoverse/answer/chat-tasks.js'
import { readLabel } from '../../lib/systems/emoverse/evaluation/robust.js'
import { EmoVerseChat } from '../../lib/systems/emoverse/index.js'
import {
  allowedLabels,
  allowedPairs,
  ECPE_WORDING,
  ecpeWordingOf,
} from '../../lib/systems/emoverse/published/wording.js'
import { languageOf } from '../../lib/systems/salmonn/data/history.js'
import {
  parseChatLine,
  parseEmotionSuffix,
  parseJudgeReply,
  SalmonnChat,
  splitEmotions,
} from '../../lib/systems/salmonn/index.js'
import { normalizeDstText } from '../../lib/systems/spectra/tracking/text.js'
import { Usdm, UsdmChat } from '../../lib/systems/usdm/index.js'
import { splitWords, squeeze, strip, stripEnd } from '../../lib/train/metrics/values.js'
import { ask, call, text, user } from '../serve/client.js'
import { Parrot, Watcher } from '../serve/models.mjs'
import { writeTextModel } from '../serve/text-model.mjs'
import { tinyEmoVerse } from '../systems/emoverse/tiny.js'
import { tinySalmonn } from '../systems/salmonn/network/tiny.js'
import { scriptedLlm, tinyTokenizer, tinyUnits } from '../systems/usdm/tiny-parts.js'
import { expectNoStall, expectTurns, FILLERS, longestStall } from './stall.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-stalls-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A value that is refused is no fault, as long as the error is typed. */
const refusing = async (work: () => unknown): Promise<void> => {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof VoxtorchError)) throw error
    expect(error.message.length).toBeLessThan(20_000)
  }
}

describe('the measure', () => {
  it('finds a pattern that backtracks, and work that grows with the square', async () => {
    const pattern = /^([^:()]{1,80}?)\s*(?:\(\s*(\p{L}+)\s*\))?\s*:\s*(\S.*)$/u
    // Of 5 kB, for the sake of whoever runs it.
    const slow = expectNoStall('a pattern', (size) => () => pattern.test(FILLERS.blanks!(size / 200)))
    await expect(slow).rejects.toThrow(/a pattern: 1 MB stalls the event loop/)
    await expectNoStall('nothing', () => () => new Promise((resolve) => setTimeout(resolve, 300)))
    expect(await longestStall(() => new Promise((resolve) => setTimeout(resolve, 50)))).toBeGreaterThan(0)
  })
})

describe('a word of any length has no neighbor or a near one', () => {
  it('in a bounded number of steps', () => {
    expect(nearest('temprature', ['top_p', 'temperature'])).toBe('temperature')
    expect(nearest('x'.repeat(101), ['x'.repeat(100)])).toBeUndefined()
    expect(nearest('x'.repeat(100), ['x'.repeat(99)])).toBe('x'.repeat(99))
    let asked = 0
    function* endless() {
      for (;;) {
        asked += 1
        yield `option${asked}`
      }
    }
    expect(nearest('optoin1', endless())).toBe('option1')
    expect(asked).toBeLessThan(2_100_000)
  })
})

const likeliest = async (_: string, labels: readonly string[]) => labels[0] as string
const parsers: Record<string, (input: string) => unknown> = {
  'a question about causes': (input) =>
    taskQuestion('ECPE', `Bob: x\n${input}`, { names: 'meld', mostLikelyLabel: likeliest }),
  ecpeWordingOf: (input) => ecpeWordingOf({ query: `${ECPE_WORDING.statement}${input}` }),
  allowedLabels,
  allowedPairs,
  readLabel: (input) => readLabel(input, ['Joy.', 'Anger.']),
  languageOf,
  parseChatLine,
  parseEmotionSuffix,
  'parseEmotionSuffix of lines': (input) => parseEmotionSuffix(`Emotion sequence: ${input}`),
  splitEmotions,
  parseJudgeReply: (input) => parseJudgeReply(`{"a": ${input}`),
  normalizeDstText,
  parseCarefully: (input) => {
    try {
      parseCarefully(input)
    } catch {}
  },
  parseInteger,
  parseFloatText,
  parseTextGrid: (input) => parseTextGrid(Buffer.from(`File type = "ooTextFile"\n${input}`), 'x.TextGrid'),
  splitWords,
  squeeze,
  strip,
  stripEnd,
  'rougeL, which is quadratic in words and bounded': (input) => rougeL(input, 'a b c'),
  'untilStop, a piece at a time': async (input) => {
    async function* pieces() {
      for (let i = 0; i < input.length; i += 1000) yield { text: input.slice(i, i + 1000), tokens: 1 }
    }
    for await (const _ of untilStop(pieces(), ['aaaab', '\n\n\nx'])) {
    }
  },
}

describe('what reads text of others', () => {
  it.each(Object.entries(parsers))('%s', async (name, parse) => {
    for (const [filler, make] of Object.entries(FILLERS)) {
      await expectNoStall(`${name} of ${filler}`, (size) => {
        const input = make(size)
        return () => refusing(() => parse(input))
      })
    }
  })
})

const SPELLED = 'abcdefghijklmnopqrstuvwxyzA,;.!:"\\[<({1|_>\u2581 \n漢'
const PIECES = ['<unk>', ...SPELLED, 'an', 'na', '11', '\u2581\u2581', '\u2581\u2581\u2581\u2581', 'the']
const ids = (pieces: readonly string[]) => Object.fromEntries(pieces.map((piece, id) => [piece, id]))
const bpe = {
  type: 'BPE',
  unk_token: '<unk>',
  fuse_unk: true,
  vocab: ids(PIECES),
  merges: ['a n', 'n a', '1 1', '\u2581 \u2581', '\u2581\u2581 \u2581\u2581'],
}
const unigram = { type: 'Unigram', unk_id: 0, vocab: PIECES.map((piece, i) => [piece, -i]) }
const wordPiece = {
  type: 'WordPiece',
  unk_token: '<unk>',
  vocab: ids([...PIECES, ...[...SPELLED].map((one) => `##${one}`)]),
}
const marks = { type: 'Replace', pattern: { String: ' ' }, content: '\u2581' }
const spaces = { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' }
const words = { Regex: '\\p{L}+|\\p{N}{1,2}|\\s+|.' }
const metaspace = { type: 'Metaspace', replacement: '\u2581', prepend_scheme: 'always' }
/** A tokenizer of each kind: those whose words are not cut apart by a published pattern read a text whole. */
const kinds: Record<string, object> = {
  'BPE of a whole text, as LLaMA': {
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '\u2581' }, marks] },
    model: bpe,
  },
  'BPE of words that a pattern of its own cuts': {
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: words, behavior: 'Isolated', invert: false },
        { type: 'Punctuation', behavior: 'Isolated' },
      ],
    },
    model: bpe,
  },
  'BPE of words, byte-level': { pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false }, model: bpe },
  'Unigram of a whole text': {
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Nmt' }, { type: 'NFKC' }, spaces] },
    model: unigram,
  },
  'Unigram, as T5': { normalizer: { type: 'NFKC' }, pre_tokenizer: metaspace, model: unigram },
  'WordPiece, as BERT': {
    normalizer: { type: 'BertNormalizer', lowercase: true },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    model: wordPiece,
  },
}

const special = (id: number, content: string) => ({
  ...{ id, content, special: true, single_word: false, lstrip: false, rstrip: false, normalized: false },
})

describe('a tokenizer that encodes 1 MB while other work runs', () => {
  it.each(Object.entries(kinds))('%s', async (kind, spec) => {
    const directory = join(folder, kind)
    mkdirSync(directory)
    writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify({ added_tokens: [special(0, '<unk>')], ...spec }))
    const tokenizer = await Tokenizer.fromPretrained(directory)
    const fillers: Record<string, (size: number) => string> = {
      ...FILLERS,
      hangul: (size: number) => '\u1112\u1161\u11ab'.repeat(size / 9),
    }
    for (const filler of ['letters', 'blanks', 'hangul']) {
      const input = fillers[filler]?.(1_000_000) ?? ''
      let length = 0
      await expectTurns(`${kind} of ${filler}`, async () => {
        length = (await tokenizer.encodeAsync(input)).length
      })
      // test/text/slices.test.ts compares the tokens themselves.
      if (filler === 'hangul') expect(length).toBe(tokenizer.encode(input).length)
      expect(length, filler).toBeGreaterThan(0)
      await expectTurns(`${kind} of ${filler}, within`, () => tokenizer.encodeWithin(input, { maxTokens: 2 ** 20 }))
    }
  })
})

const body = (more: object = {}) => ({ messages: [user(text('x'))], max_tokens: 2, ...more })
/** Every field of a request that can be long, and the names of fields. */
const fields: Record<string, (long: string) => object> = {
  'a name': (long) => body({ [long]: 1 }),
  'a name with null': (long) => body({ [long]: null }),
  model: (long) => body({ model: long }),
  'words in a part': (long) => ({ messages: [user(text(long))], max_tokens: 2 }),
  'words as content': (long) => ({ messages: [{ role: 'user', content: long }], max_tokens: 2 }),
  'words of a system': (long) => ({ messages: [{ role: 'system', content: long }, user(text('x'))], max_tokens: 2 }),
  'words of an answer': (long) => ({
    messages: [user(text('x')), { role: 'assistant', content: long }, user(text('y'))],
    max_tokens: 2,
  }),
  'words about causes': (long) => ({ messages: [user(text(`Bob: y\n${long}`))], task: 'ECPE', max_tokens: 2 }),
  'words about an emotion': (long) => ({ messages: [user(text(long))], task: 'MER', max_tokens: 2 }),
  role: (long) => ({ messages: [{ role: long, content: 'x' }] }),
  'a name in a message': (long) => ({ messages: [{ role: 'user', content: 'x', [long]: 1 }], max_tokens: 2 }),
  'a type': (long) => ({ messages: [user({ type: long })] }),
  'the data of a clip': (long) => ({
    messages: [user({ type: 'input_audio', input_audio: { data: long, format: 'wav' } })],
  }),
  'the format of a clip': (long) => ({
    messages: [user({ type: 'input_audio', input_audio: { data: 'AAAA', format: long } })],
  }),
  'an address': (long) => ({ messages: [user({ type: 'image_url', image_url: { url: long } })] }),
  'an address of data': (long) => ({
    messages: [user({ type: 'image_url', image_url: { url: `data:image/png;base64,${long}` } })],
  }),
  frames: (long) => ({
    messages: [user({ type: 'video_url', video_url: { url: `data:video/jpeg;base64,${long.replaceAll('a', 'A,')}` } })],
  }),
  detail: (long) => ({ messages: [user({ type: 'image_url', image_url: { url: 'x', detail: long } })] }),
  'a name in an address': (long) => ({ messages: [user({ type: 'image_url', image_url: { url: 'x', [long]: 1 } })] }),
  stop: (long) => body({ stop: long }),
  stops: (long) => body({ stop: [...long] }),
  task: (long) => body({ task: long }),
  labels: (long) => body({ score_labels: ['a', long] }),
  modalities: (long) => body({ modalities: ['text', long] }),
  'many modalities': (long) => body({ modalities: [...long].map(() => 'text') }),
  'a name in audio': (long) => body({ modalities: ['text', 'audio'], audio: { [long]: 1 } }),
  'the format of audio': (long) => body({ modalities: ['text', 'audio'], audio: { format: long } }),
  'a voice': (long) => body({ modalities: ['text', 'audio'], audio: { voice: long } }),
  'a reference': (long) => body({ modalities: ['text', 'audio'], audio: { reference: { data: long, format: 'wav' } } }),
  'the id of an answer': (long) => ({
    messages: [user(text('x')), { role: 'assistant', audio: { id: long } }, user(text('y'))],
    modalities: ['text', 'audio'],
  }),
  'a name in stream_options': (long) => body({ stream: true, stream_options: { [long]: true } }),
  user: (long) => body({ user: long }),
  metadata: (long) => body({ metadata: Object.fromEntries([...long.slice(0, 50_000)].map((_, i) => [`k${i}`, 1])) }),
  logit_bias: (long) => body({ logit_bias: { [long]: 1 } }),
  temperature: (long) => body({ temperature: long }),
  numbers: (long) => body({ tools: Array(Math.floor(long.length / 2)).fill(1) }),
}

/** These look at texts; what else a request has never reaches them. */
const READERS = ['text', 'whole', 'emoverse', 'salmonn', 'usdm']

const models: Record<string, () => Promise<ChatModel & { dispose?(): void }>> = {
  parrot: async () => Object.assign(new Parrot(), { outputModalities: ['text', 'audio'] as const, audioRate: 16_000 }),
  watcher: async () => new Watcher(),
  text: async () => {
    await writeTextModel(folder, DecoderLM)
    return new TextChat(await DecoderLM.fromPretrained(folder), await Tokenizer.fromPretrained(folder))
  },
  // Its tokenizer reads a text whole, and blanks are so few tokens that the prompt fits.
  whole: async () => {
    const directory = join(folder, 'whole')
    await writeTextModel(directory, DecoderLM, { vocabSize: 320 })
    const path = join(directory, 'tokenizer.json')
    const spec = JSON.parse(readFileSync(path, 'utf8'))
    const blanks = Array.from({ length: 15 }, (_, i) => '\u2581'.repeat(2 ** i))
    const merges = blanks.slice(0, -1).map((one) => `${one} ${one}`)
    const known = [...new Set([...'abcdefghijklmnopqrstuvwxyzA<|_>/\n', ...blanks])]
    const vocab = { ...ids(known), '</s>': 256, '<s>': 257 }
    spec.model = { ...spec.model, vocab, merges }
    writeFileSync(path, JSON.stringify({ ...spec, normalizer: marks, pre_tokenizer: null, decoder: null }))
    return new TextChat(await DecoderLM.fromPretrained(directory), await Tokenizer.fromPretrained(directory))
  },
  emoverse: async () => new EmoVerseChat(await tinyEmoVerse()),
  salmonn: async () => new SalmonnChat(await tinySalmonn()),
  usdm: async () => {
    const tokenizer = await tinyTokenizer(join(folder, 'usdm'))
    return new UsdmChat(new Usdm({ llm: scriptedLlm(tokenizer), tokenizer, units: await tinyUnits() }))
  },
}

describe('a request of 1 MB to `serve`', () => {
  let served: Served | undefined
  let model: (ChatModel & { dispose?(): void }) | undefined
  afterEach(async () => {
    await served?.close({ now: true })
    model?.dispose?.()
  })

  it.each(Object.entries(models))('in any field, for %s', async (name, load) => {
    setNumThreads(1)
    model = await load()
    served = await serve(model)
    const { url } = served
    for (const [field, make] of Object.entries(fields)) {
      if (READERS.includes(name) && !field.startsWith('words')) continue
      for (const [filler, fill] of Object.entries(FILLERS)) {
        await expectNoStall(`${field} of ${filler}`, (size) => {
          const bytes = Buffer.from(JSON.stringify(make(fill(size))))
          return async () => {
            const { status, text: reply } = await ask(url, bytes)
            // Nothing fails inside, and no error repeats what it refuses.
            expect(status, reply.slice(0, 500)).toBeLessThan(500)
            if (status !== 200) expect(reply.length).toBeLessThan(20_000)
          }
        })
      }
    }
    if (name === 'whole') {
      // Linear work that is done at once holds everybody up too.
      const bytes = Buffer.from(JSON.stringify(fields['words in a part']?.(FILLERS.blanks?.(900_000) as string)))
      await expectTurns('a prompt of blanks', async () => expect((await ask(url, bytes)).status).toBe(200))
    }
    // Headers and paths have a bound of their own.
    const long = 'a'.repeat(15_000)
    for (const [header, value] of [
      ['authorization', `Bearer ${' '.repeat(15_000)}x`],
      ['origin', `http://${long}`],
    ] as const) {
      const headers = { [header]: value }
      expect((await call(url, '/v1/models', { headers })).status).toBeLessThan(500)
    }
    expect((await call(url, `/${long}`)).status).toBe(404)
  })
})

it('a message has an end, and its error the whole value', () => {
  const error = new ConfigError('x'.repeat(1_000_000), { value: 'y' })
  expect(error.message.length).toBeLessThan(10_100)
  expect(error).toMatchObject({ value: 'y' })
})
