import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  DataError,
  type DecoderLM,
  publishedWeights,
  scope,
  type Tensor,
  tensor,
  Whisper,
  writeWav,
  zeros,
} from '../../../lib/index.js'
import { runCommand } from '../../../lib/kit/command.js'
import { score } from '../../../lib/systems/usdm/commands/score.js'
import {
  GriffinLimVocoder,
  predictUsdm,
  readUsdmJsonl,
  readUsdmPredictions,
  scoreUsdm,
  Usdm,
  type UsdmPrediction,
  type UsdmTokenizer,
  usdmExample,
  usdmLosses,
  usdmScores,
  writeUsdmPredictions,
} from '../../../lib/systems/usdm/index.js'
import { dataPath, hasData } from '../../audio/helpers.js'
import { byteTokenizer, tinyDialogs, tinyNetwork } from './tiny.js'
import { tinyLlm, tinySpeech, tinyTokenizer, tinyUnits } from './tiny-parts.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-scoring-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

/** One word of four is wrong in what was heard; the reply has three words of four, and was spoken with one word too many. */
const PREDICTIONS: UsdmPrediction[] = [
  {
    id: 'a',
    user: 'Good morning, my friend.',
    transcript: 'good morning my fiend',
    agent: 'no problem at all.',
    reply: 'no problem at',
  },
  { id: 'b', reply: "don't worry", heard: "Don't you worry!" },
  { id: 'c', user: 'tea', transcript: 'tea' },
]

describe('usdmScores', () => {
  it('has the rates of the words, by hand', () => {
    const scores = usdmScores(PREDICTIONS)
    expect(scores).toMatchObject({ predictions: 3, sttSamples: 2, ttsSamples: 1, replySamples: 1 })
    expect(scores.sttWer).toBeCloseTo(1 / 5, 12)
    expect(scores.ttsWer).toBeCloseTo(1 / 2, 12)
    // Precision 1 and recall 3/4; METEOR: 10PR / (R + 9P) and one chunk of three.
    expect(scores.rougeL).toBeCloseTo((2 * 1 * 0.75) / 1.75, 12)
    expect(scores.meteor).toBeCloseTo(((10 * 0.75) / (0.75 + 9)) * (1 - 0.5 / 27), 12)
    expect(scores.meteorVariant).toBe('exact and stem, without WordNet')
    expect(usdmScores([{ id: 'x' }])).toMatchObject({ sttWer: null, ttsWer: null, meteor: null, rougeL: null })
    expect(() => usdmScores([{ id: 1 }] as never)).toThrow(/id/)
  })
})

describe('predictions in a file', () => {
  it('are read as they were written, with sound files that are there', async () => {
    const file = join(home, 'predictions.jsonl')
    await scope(async () => writeWav(join(home, 'a.wav'), zeros([1600]), { sampleRate: 16_000 }))
    const given = PREDICTIONS.map((one) => (one.id === 'a' ? { ...one, wav: join(home, 'a.wav') } : one))
    await writeUsdmPredictions(file, given)
    expect((await readUsdmPredictions(file)).predictions).toEqual(given)
    writeFileSync(file, '{"id":"a","wav":"a.wav"}\n')
    expect((await readUsdmPredictions(file)).predictions).toEqual([{ id: 'a', wav: join(home, 'a.wav') }])
  })

  it.each([
    ['{"id":"a"}\n{"id":"a"}', /line 2: expected unique ids, got a of line 1 again/],
    ['{"user":"a"}', /line 1: expected the field 'id', got none/],
    ['{"id":"a","replay":"b"}', /line 1: expected the fields .*, got 'replay'; did you mean 'reply'/],
    ['{"id":"a","reply":3}', /line 1: reply: expected a string, got 3/],
    ['[]', /line 1: expected a JSON object, got an array/],
    ['{"id":"a","wav":"none.wav"}', /line 1: wav: expected an audio file, got .*none\.wav, which does not exist/],
  ])('%s is refused', async (text, message) => {
    const file = join(home, 'bad.jsonl')
    writeFileSync(file, text)
    await expect(readUsdmPredictions(file)).rejects.toThrow(message)
    const { badRecords } = await readUsdmPredictions(file, { onBadRecord: 'skip' })
    expect(badRecords).toBe(1)
  })
})

describe('predictUsdm', () => {
  it('asks for each turn that has an answer, once, and goes on where it was ended', async () => {
    const file = join(home, 'turns.jsonl')
    const turns = ['hi', 'hello', 'tea?', 'yes'].map((text, turn) => ({
      dialog: 'd',
      turn,
      speaker: turn % 2,
      text,
      wav: `${turn}.wav`,
    }))
    writeFileSync(file, turns.map((turn) => JSON.stringify(turn)).join('\n'))
    const dialogs = await readUsdmJsonl(file)
    const output = join(home, 'answers.jsonl')
    const asked: string[] = []
    const respond = async (wav: string) => {
      asked.push(basename(wav))
      if (asked.length === 40) throw new Error('out of breath')
      const transcript = turns[Number.parseInt(basename(wav), 10)]?.text as string
      return { transcript, text: 'yes', wav: { samples: new Float32Array(441).fill(0.5), sampleRate: 22_050 } }
    }
    const first = await predictUsdm({ respond }, dialogs, { output, limit: 2 })
    expect(asked).toEqual(['0.wav', '2.wav'])
    const all = await predictUsdm({ respond }, dialogs, { output })
    expect(asked).toEqual(['0.wav', '2.wav', '1.wav'])
    expect(all.slice(0, 2)).toEqual(first)
    expect(all.map(({ id, user, agent }) => [id, user, agent])).toEqual([
      ['d:0', 'hi', 'hello'],
      ['d:2', 'tea?', 'yes'],
      ['d:1', 'hello', 'tea?'],
    ])
    expect((await readUsdmPredictions(output)).predictions).toEqual(all)
    expect(usdmScores(all)).toMatchObject({ sttWer: 0, sttSamples: 3, replySamples: 3 })
    asked.push(...Array(36).fill(''))
    const other = join(home, 'other.jsonl')
    await expect(predictUsdm({ respond }, dialogs, { output: other })).rejects.toThrow(
      /turns\.jsonl, line 1: .*0\.wav: out of breath/,
    )
    // Of what was answered before that nothing is lost, and it is not asked again.
    asked.splice(0)
    const half = join(home, 'half.jsonl')
    const breathless = { respond: (wav: string) => (asked.length === 2 ? Promise.reject(new Error('gone')) : respond(wav)) } // biome-ignore format: one line
    await expect(predictUsdm(breathless, dialogs, { output: half })).rejects.toThrow(/line 2: .*1\.wav: gone/)
    expect((await readUsdmPredictions(half)).predictions.map(({ id }) => id)).toEqual(['d:0', 'd:2'])
    expect(await predictUsdm({ respond }, dialogs, { output: half })).toHaveLength(3)
    expect(asked).toEqual(['0.wav', '2.wav', '1.wav'])
    const mute = { respond: async () => Promise.reject(new DataError('no units', { transcript: 'hi', text: 'yes' })) }
    const [first2] = await predictUsdm(mute, dialogs, { output: join(home, 'mute.jsonl'), limit: 1 })
    expect(first2).toEqual({ id: 'd:0', user: 'hi', agent: 'hello', transcript: 'hi', reply: 'yes' })
    await expect(predictUsdm({} as never, dialogs, { output })).rejects.toThrow(/model\.respond to be a function/)
  })
})

describe('whose predictions they are', () => {
  it('is kept beside them, and those of another are refused by name', async () => {
    const file = join(home, 'whose.jsonl')
    const turns = ['hi', 'hello'].map((text, turn) => ({ dialog: 'd', turn, speaker: turn, text, wav: `${turn}.wav` }))
    writeFileSync(file, turns.map((turn) => JSON.stringify(turn)).join('\n'))
    const dialogs = await readUsdmJsonl(file)
    const answering = { respond: async () => ({ transcript: 'hi', text: 'yes' }) }
    const [output, unnamed] = [join(home, 'mine.jsonl'), join(home, 'unnamed.jsonl')]
    const predict = (output: string, fingerprint?: string) =>
      predictUsdm(answering, dialogs, { output, ...(fingerprint !== undefined && { fingerprint }) })
    const made = await predict(output, 'one')
    expect(JSON.parse(readFileSync(join(home, 'mine.made-by.json'), 'utf8'))).toEqual({ fingerprint: 'one' })
    expect(await predict(output, 'one')).toEqual(made)
    await expect(predict(output, 'two')).rejects.toThrow(
      /mine\.jsonl: expected predictions of this model, got one of another model/,
    )
    await expect(predict(output)).rejects.toThrow(/Set `fingerprint`/)
    await predict(unnamed)
    await predict(unnamed)
    await expect(predict(unnamed, 'one')).rejects.toThrow(
      /unnamed\.jsonl: expected predictions of this model, got one without a recorded model/,
    )
    // Where the answers are gone, others may stand there.
    rmSync(output)
    await predict(output, 'two')
    expect(await predict(output, 'two')).toEqual(made)
    await expect(predict(output, 5 as never)).rejects.toThrow(/fingerprint to be a string/)
  })

  it('a Usdm is told by its networks, centroids and tokens', async () => {
    const [units, tokenizer] = [await tinyUnits(), await tinyTokenizer(join(home, 'tiny'))]
    const { voicebox, vocoder } = tinySpeech()
    const parts = { llm: tinyLlm(tokenizer.vocabSize), tokenizer, units, voicebox, vocoder }
    const known = await new Usdm(parts).fingerprint()
    expect(known).toMatch(/^[0-9a-f]{64}$/)
    expect(await new Usdm({ ...parts, llm: tinyLlm(tokenizer.vocabSize) }).fingerprint()).toBe(known)
    const others = [
      { llm: tinyLlm(tokenizer.vocabSize, { initializerRange: 0.1 }) },
      { llm: tinyLlm(tokenizer.vocabSize, { ropeTheta: 5000 }) },
      { voicebox: null },
      { vocoder: new GriffinLimVocoder() },
    ].map((change) => new Usdm({ ...parts, ...change }).fingerprint())
    const all = [known, ...(await Promise.all(others))]
    expect(new Set(all).size).toBe(all.length)
  })
})

describe('scoreUsdm', () => {
  it('asks the judge about each reply that was not heard', async () => {
    const asked: string[] = []
    const given = [{ id: 'a', reply: 'hello there', wav: 'a.wav' }, ...PREDICTIONS.slice(1)]
    const { scores, predictions } = await scoreUsdm(given, {
      judge: async (wav) => {
        asked.push(wav)
        return ' Hello, there. '
      },
    })
    expect(asked).toEqual(['a.wav'])
    expect(predictions[0]?.heard).toBe('Hello, there.')
    expect([scores.ttsSamples, scores.ttsWer]).toEqual([2, 1 / 4])
    expect((await scoreUsdm(given)).scores.ttsSamples).toBe(1)
    const deaf = async () => {
      throw new Error('too loud')
    }
    await expect(scoreUsdm(given, { judge: deaf })).rejects.toThrow(
      /prediction a: expected an audio file that can be transcribed, got a\.wav: too loud/,
    )
    await expect(scoreUsdm(given, { judge: {} } as never)).rejects.toThrow(/judge to be a Whisper/)
    await expect(scoreUsdm(given, { jugde: deaf } as never)).rejects.toThrow(/jugde/)
  })

  const isHere = publishedWeights().some(({ name, present }) => name === 'whisper-tiny.en' && present)
  it.skipIf(!isHere || !hasData('librispeech-other'))('hears speech with a published Whisper', async () => {
    const texts = JSON.parse(readFileSync('test/fixtures/models/whisper-published.json', 'utf8'))['whisper-tiny.en']
    const [[clip, text]] = Object.entries(texts as Record<string, string>) as [[string, string]]
    using judge = await Whisper.fromPretrained('whisper-tiny.en', { offline: true })
    const wav = dataPath(`librispeech-other/${clip.split('-')[0]}/${clip}`)
    const { scores, predictions } = await scoreUsdm([{ id: 'clip', reply: text, wav }], { judge })
    expect(predictions[0]?.heard?.length).toBeGreaterThan(10)
    expect(scores.ttsWer).toBeLessThan(0.3)
  })

  it('on the command line reads, scores and writes', async () => {
    const [file, json, output] = ['said.jsonl', 'scores.json', 'heard.jsonl'].map((name) => join(home, name)) as [
      string,
      string,
      string,
    ]
    await writeUsdmPredictions(file, PREDICTIONS)
    const lines: string[] = []
    const log = console.log
    console.log = (line: string) => void lines.push(line)
    try {
      const words = ['--predictions', file, '--json', json, '--output', output]
      expect(await runCommand('voxtorch usdm score', score, words)).toBe(0)
    } finally {
      console.log = log
    }
    expect(lines.join('\n')).toMatch(/WER of transcripts +0\.2000 \(2\)/)
    expect(lines.join('\n')).toMatch(/METEOR of replies +0\.\d{4} \(exact and stem, without WordNet\)/)
    expect(JSON.parse(readFileSync(json, 'utf8'))).toEqual(usdmScores(PREDICTIONS))
    expect((await readUsdmPredictions(output)).predictions).toEqual(PREDICTIONS)
  })
})

describe('usdmLosses', () => {
  let tokenizer: UsdmTokenizer
  beforeAll(async () => {
    tokenizer = await byteTokenizer(join(home, 'tokenizer'), 6)
  })

  it('are the means over transcripts, replies and units of speech, by hand', async () => {
    await scope(async () => {
      const model: DecoderLM = tinyNetwork(tokenizer).eval()
      const turn = (text: string, units: number[]) => ({ text, units })
      const two = usdmExample(tokenizer, [
        { user: turn('hi', [1, 2]), agent: turn('yes', [3, 4, 5]) },
        { user: turn('and', [0]), agent: turn('no no', [2]) },
      ])
      const examples = [two, ...tinyDialogs(tokenizer, 4)]
      const sums = { transcript: [] as number[], reply: [] as number[], speech: [] as number[] }
      const { correspond, newline } = tokenizer.ids
      for (const { inputIds, labels } of examples) {
        const { logits } = await model.forward({ inputIds: tensor([inputIds]) })
        const rows = (logits as Tensor).select(0, 0).logSoftmax(-1).toArray() as number[][]
        // By what was said last: the second line break in what is learnt of a turn ends it.
        let kind: keyof typeof sums = 'transcript'
        for (const [i, label] of labels.entries()) {
          if (label === -100) continue
          sums[kind].push(-(rows[i - 1] as number[])[label]!)
          if (kind === 'transcript' && label === newline) kind = 'reply'
          else if (kind === 'reply' && label === correspond) kind = 'speech'
          else if (kind === 'speech' && label === newline) kind = 'transcript'
        }
      }
      const losses = await usdmLosses(model, tokenizer, examples, { batchSize: 2 })
      for (const [kind, values] of Object.entries(sums) as [keyof typeof sums, number[]][]) {
        expect(losses[`${kind}Tokens`], kind).toBe(values.length)
        expect(losses[kind], kind).toBeCloseTo(values.reduce((sum, one) => sum + one, 0) / values.length, 5)
      }
      expect(await usdmLosses(model, tokenizer, [])).toMatchObject({ transcript: null, speechTokens: 0 })
    })
  })
})
