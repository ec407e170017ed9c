import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import {
  ConfigError,
  ContinuousBatching,
  DataError,
  type DecoderLM,
  memoryStats,
  noGrad,
  randn,
  scope,
  setNumThreads,
  type Tensor,
  Tokenizer,
  tensor,
  UnitExtractor,
  writeWav,
} from '../../../lib/index.js'
import {
  frameUnits,
  GriffinLimVocoder,
  Usdm,
  UsdmCache,
  type UsdmEvent,
  type UsdmRespondOptions,
  type UsdmTokenizer,
  unitFrames,
  usdmPrompt,
} from '../../../lib/systems/usdm/index.js'
import { replyOf, transcriptOf } from '../../../lib/systems/usdm/network/passes.js'
import { settledTensors } from '../../helpers.js'
import { mistral } from './mistral.js'
import {
  chirp,
  SCRIPT,
  type Script,
  scriptedLlm,
  TinyVocoder,
  TinyVoicebox,
  tinyLlm,
  tinySpeech,
  tinyTokenizer,
  tinyUnits,
  UNITS,
} from './tiny-parts.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-respond-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let tokenizer: UsdmTokenizer
let units: UnitExtractor
beforeAll(async () => {
  setNumThreads(1)
  tokenizer = await tinyTokenizer(join(folder, 'text'))
  units = await tinyUnits()
})

const vocoder = new GriffinLimVocoder()
const scripted = (script: Script = {}, parts: object = {}, config: object = {}) =>
  new Usdm({ llm: scriptedLlm(tokenizer, { ...SCRIPT, ...script }, config), tokenizer, units, ...parts })
const speaking = (script: Script = {}, config: object = {}) => {
  const voicebox = new TinyVoicebox()
  return { usdm: scripted(script, { voicebox, vocoder }, config), voicebox }
}
const QUESTION = { units: [1, 2, 3] }

async function eventsOf(stream: AsyncIterable<UsdmEvent>): Promise<UsdmEvent[]> {
  const events: UsdmEvent[] = []
  for await (const event of stream) events.push(event)
  return events
}

describe('frameUnits', () => {
  it('gives each frame of 256 samples the unit that has most of its 441, the smaller of two that have as much', () => {
    expect([...frameUnits([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])]).toEqual([0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 8, 9])
    expect([49, 50, 99, 100, 149].map((n) => unitFrames(n))).toEqual([84, 86, 170, 172, 256])
    const many = Array.from({ length: 300 }, (_, i) => i)
    // Half of frame 220 is unit 126's, half 127's neighbour's: both orders give the smaller.
    const up = frameUnits(many)
    const down = frameUnits(many.map((unit) => 299 - unit))
    expect(up[220]).toBe(127)
    expect(down[220]).toBe(299 - 128)
    // As the definition says it, sample by sample.
    const samples = many.flatMap((unit) => new Array<number>(441).fill(unit))
    for (let frame = 0; frame < up.length; frame++) {
      const counts = new Map<number, number>()
      for (const unit of samples.slice(256 * frame, 256 * frame + 256)) counts.set(unit, (counts.get(unit) ?? 0) + 1)
      const [mode] = [...counts].sort(([a, n], [b, m]) => m - n || a - b)[0] as [number, number]
      expect(up[frame], `frame ${frame}`).toBe(mode)
    }
    expect(frameUnits([])).toHaveLength(0)
    expect(() => frameUnits('abc' as never)).toThrow(ConfigError)
    expect(() => frameUnits([1], { samplesPerUnit: 100 })).toThrow(
      /expected hopLength of at most samplesPerUnit, 100, got 256/,
    )
  })
})

describe('what of a text counts', () => {
  it.each([
    [' hi.\n', 'hi.'],
    ['a<|correspond|> hi.\n', 'hi.'],
    ['  hi \n', ' hi'],
    ['', ''],
  ])('transcript %j', (text, wanted) => expect(transcriptOf(text)).toBe(wanted))
  it.each([
    ['ok.<|correspond|>', 'ok.'],
    ['a\nb<|correspond|>', 'b'],
    [' ok <|correspond|>', 'ok '],
    ['<|correspond|>', ''],
  ])('reply %j', (text, wanted) => expect(replyOf(text)).toBe(wanted))
})

/** The likeliest tokens one by one, each from all that stands before it, in plain loops. */
async function plainly(llm: DecoderLM, prompt: number[], may: (id: number) => boolean, stops: number[], most: number) {
  const ids = [...prompt]
  for (let i = 0; i < most; i++) {
    const next = await noGrad(() =>
      scope(async () => {
        const { logits } = await llm.forward({ inputIds: tensor([ids], { dtype: 'int64' }), logitsToKeep: 1 })
        const scores = [...((await logits!.flatten().data()) as Float32Array)]
        return scores.reduce((best, score, id) => (may(id) && (best < 0 || score > scores[best]!) ? id : best), -1)
      }),
    )
    ids.push(next)
    if (stops.includes(next)) break
  }
  return ids.slice(prompt.length)
}

/** The three passes as §5.2 has them. */
async function plainReply(
  llm: DecoderLM,
  words: UsdmTokenizer,
  question: number[],
  { text, speech, history = [] }: { text: number; speech: number; history?: UsdmRespondOptions['history'] },
) {
  const { ids } = words
  const special = (id: number) => words.isUnit(id) || id === ids.pad
  const input = { units: question, history: history ?? [] }
  const first = await plainly(
    llm,
    usdmPrompt(words, input),
    (id) => !special(id) && id !== ids.continue && id !== ids.correspond,
    [ids.newline],
    text,
  )
  const transcript = transcriptOf(words.decode([ids.correspond, ...first]))
  const second = await plainly(
    llm,
    usdmPrompt(words, { ...input, transcript }),
    (id) => !special(id),
    [ids.correspond],
    text,
  )
  const reply = replyOf(words.decode([ids.newline, ...second]))
  const third = await plainly(
    llm,
    usdmPrompt(words, { ...input, transcript, reply }),
    (id) => special(id) || id === ids.endOfSpeech,
    [ids.endOfSpeech],
    speech,
  )
  return { transcript, text: reply, units: words.unitsOf(third) }
}

describe('the three passes', () => {
  it('write what plain loops over the whole text write, with one cache, over several turns', async () => {
    const llm = tinyLlm(tokenizer.vocabSize)
    const usdm = new Usdm({ llm, tokenizer, units })
    const limits = { maxTextTokens: 24, maxUnits: 30 }
    using cache = new UsdmCache()
    const history = []
    for (const seed of [0, 1, 2]) {
      const question = [...(await usdm.hear(chirp(0.3, seed)))]
      const reply = await usdm.respond({ units: question }, { ...limits, history, cache })
      const wanted = await plainReply(llm, tokenizer, question, { text: 24, speech: 30, history })
      const { transcript, text, units: said, wav } = reply
      expect({ transcript, text, units: said }).toEqual(wanted)
      expect(wav).toBeNull()
      // All but the last token was read.
      const prompt = usdmPrompt(tokenizer, { units: question, transcript, reply: text, history })
      expect(cache.length).toBeGreaterThanOrEqual(prompt.length)
      const alone = await usdm.respond(chirp(0.3, seed), { ...limits, history })
      expect(alone).toEqual({
        ...reply,
        turn: { ...reply.turn, user: { ...reply.turn.user, units: expect.anything() } },
      })
      if (said.length === 0) throw new Error('the next turn wants units')
      history.push(reply.turn)
    }
  }, 300_000)

  it("have the published ids with Mistral's tokenizer: 28705 ends speech, 13 the transcript", async () => {
    const words = await mistral()
    const llm = tinyLlm(words.vocabSize, { hiddenSize: 16, intermediateSize: 16, numHiddenLayers: 1 })
    const { network, layer } = units.encoder
    const kmeans = randn([10_000, units.kmeans.dim])
    using many = await UnitExtractor.fromPretrained({ encoder: network, kmeans, layer })
    const usdm = new Usdm({ llm, tokenizer: words, units: many })
    const reply = await usdm.respond({ units: [5, 9999, 5] }, { maxTextTokens: 10, maxUnits: 12 })
    const wanted = await plainReply(llm, words, [5, 9999, 5], { text: 10, speech: 12 })
    expect({ transcript: reply.transcript, text: reply.text, units: reply.units }).toEqual(wanted)
    expect(reply.finish.units).toBe(wanted.units.length === 12 ? 'length' : reply.finish.units)
  }, 300_000)

  it('pass on what the model wrote as it came, capital letters and spaces too', async () => {
    // The second and third prompt of the original are the first one with the stripped text behind it.
    const usdm = scripted({ '<|correspond|>': [' ', '<|unit5|>'], ' ': 'H', H: 'i', '\n': 'O', O: 'k', k: '.' })
    using cache = new UsdmCache()
    const keep = vi.spyOn(cache, 'keep')
    const { transcript, text } = await usdm.respond(QUESTION, { cache })
    expect([transcript, text]).toEqual(['Hi!', 'Ok.'])
    const prompts = keep.mock.calls.map(([ids]) => tokenizer.decode(ids))
    const first = tokenizer.decode(usdmPrompt(tokenizer, QUESTION))
    expect(prompts[1]?.startsWith(`${first}Hi!\n### Agent\n`), prompts[1]).toBe(true)
    expect(prompts[2]?.startsWith(`${first}Hi!\n### Agent\nOk.<|correspond|>`), prompts[2]).toBe(true)
    keep.mockClear()
    // A caller's own text is written as the training data is.
    await usdm.respond(QUESTION, { cache, transcript: 'What\n NOW?', reply: 'I See' })
    expect(tokenizer.decode(keep.mock.calls[0]?.[0] ?? [])).toContain('<|correspond|>what now?\n### Agent\ni see<|')
  })

  it('end at their own tokens, and read each prompt as far as it is new', async () => {
    const usdm = scripted()
    using cache = new UsdmCache()
    const reply = await usdm.respond(QUESTION, { cache })
    expect(reply).toMatchObject({
      transcript: 'hi!',
      text: 'ok.',
      units: [5, 6, 7, 8, 9, 10, 11, 12],
      wav: null,
      finish: { transcript: 'stop', text: 'stop', units: 'stop' },
      turn: { user: { text: 'hi!' }, agent: { text: 'ok.' } },
    })
    const prompt = usdmPrompt(tokenizer, { units: [1, 2, 3], transcript: 'hi!', reply: 'ok.' })
    // The line break that ends speech was never read.
    expect(cache.length).toBe(prompt.length + 8)
    const next = await usdm.respond(QUESTION, { cache, history: [reply.turn] })
    expect(next.text).toBe('ok.')
    expect(cache.length).toBeGreaterThan(2 * prompt.length - 200)
  })

  it('with `strict` no padding, no <|continue|> and no line break comes', async () => {
    const script: Script = {
      k: ['\n', '.'],
      '.': ['<|continue|>', '<|correspond|>'],
      '<|continue|>': '<|correspond|>',
      '<|unit5|>': ['<pad>', '<|unit6|>'],
      '<pad>': '<|unit6|>',
    }
    const { k: _, ...rest } = script
    const loose = await scripted(rest).respond(QUESTION)
    expect(loose.text).toBe('ok.<|continue|>')
    expect(loose.units).toEqual([5, 6, 7, 8, 9, 10, 11, 12])
    const strict = await scripted(script).respond(QUESTION, { strict: true })
    expect(strict).toMatchObject({ text: 'ok.', units: [5, 6, 7, 8, 9, 10, 11, 12] })
    // Padding is no unit, and takes the place of one.
    const eight = { maxUnits: 8 }
    expect((await scripted(rest).respond(QUESTION, eight)).units).toEqual([5, 6, 7, 8, 9, 10, 11])
    expect((await scripted(rest).respond(QUESTION, { ...eight, strict: true })).units).toHaveLength(8)
    // The end of the text ends a transcript and a reply, and is no part of them.
    const eos = tokenizer.tokenizer.idToToken(tokenizer.ids.eos) as string
    const ended = await scripted({ '!': eos, '.': eos }).respond(QUESTION, { strict: true })
    expect(ended).toMatchObject({ transcript: 'hi!', text: 'ok.', finish: { transcript: 'stop', text: 'stop' } })
    // What comes behind the last line break is the reply, as published.
    const broken = await scripted({ k: '\n', '\n': ['o', '.'] }).respond(QUESTION, { maxTextTokens: 8 })
    expect(broken).toMatchObject({ finish: { text: 'length' } })
    expect(broken.text).not.toContain('\n')
  })

  it('an empty transcript or reply is an empty line of the template', async () => {
    const heardNothing = await scripted({ '<|correspond|>': ['\n', '<|unit5|>'] }).respond(QUESTION)
    // Of this tokenizer the line break ends speech too.
    expect(heardNothing).toMatchObject({ transcript: '', text: 'ok.', units: [] })
    const saidNothing = await scripted().respond(QUESTION, { reply: '' })
    expect(saidNothing).toMatchObject({ transcript: 'hi!', text: '', units: [5, 6, 7, 8, 9, 10, 11, 12] })
    const prompt = (more: object) => tokenizer.decode(usdmPrompt(tokenizer, { units: [1], ...more }))
    expect(prompt({ transcript: '' })).toBe(`${prompt({})}\n### Agent\n`)
    expect(prompt({ transcript: 'hi!', reply: '' })).toBe(`${prompt({ transcript: 'hi!' })}<|correspond|>`)
  })

  it('a reply that never stops ends at its limit, and at the end of the room', async () => {
    const endless: Script = { '<|unit12|>': '<|unit5|>' }
    const limited = await scripted(endless).respond(QUESTION, { maxUnits: 21 })
    expect(limited.units).toHaveLength(21)
    expect(limited.finish.units).toBe('length')
    const room = 320
    const filled = await scripted(endless, {}, { maxPositionEmbeddings: room }).respond(QUESTION)
    const prompt = usdmPrompt(tokenizer, { units: [1, 2, 3], transcript: 'hi!', reply: 'ok.' })
    expect(filled.units).toHaveLength(room - prompt.length)
    // The tokenizer says how long a text may be, as both training programs leave it, where the model has room for more.
    const words = tokenizer.tokenizer
    const told = words.modelMaxLength
    words.modelMaxLength = room
    try {
      const shorter = await scripted(endless, {}, { maxPositionEmbeddings: 2048 }).respond(QUESTION)
      expect(shorter.units).toHaveLength(room - prompt.length)
    } finally {
      words.modelMaxLength = told
    }
    const chatter = await scripted({ '!': 'h' }).respond(QUESTION, { maxTextTokens: 9 })
    expect(chatter).toMatchObject({ transcript: 'hi!hi!hi!', finish: { transcript: 'length' } })
    const full = scripted({}, {}, { maxPositionEmbeddings: 200 }).respond(QUESTION)
    await expect(full).rejects.toThrow(/expected a conversation of fewer than 200 tokens, got \d+/)
    await expect(full).rejects.toBeInstanceOf(DataError)
  })

  it('draws the same for the same seed, and the likeliest without a temperature', async () => {
    const usdm = new Usdm({ llm: tinyLlm(tokenizer.vocabSize), tokenizer, units })
    const limits = { maxTextTokens: 12, maxUnits: 12, strict: true }
    const ask = (options: UsdmRespondOptions) => usdm.respond(QUESTION, { ...limits, ...options })
    const sampling = { temperature: 1.3, topP: 0.95, topK: 100 }
    const first = await ask({ sampling, seed: 4 })
    expect(await ask({ sampling, seed: 4 })).toEqual(first)
    expect(await ask({ sampling, seed: 5 })).not.toEqual(first)
    const greedy = await ask({})
    expect(await ask({ sampling: { temperature: 1, topK: 1 }, seed: 1 })).toEqual(greedy)
    expect(await ask({ sampling: { temperature: 0, topP: 0.5 } })).toEqual(greedy)
  })

  it('several at once share passes, and each is what it is alone', async () => {
    const llm = tinyLlm(tokenizer.vocabSize)
    const usdm = new Usdm({ llm, tokenizer, units })
    using batching = new ContinuousBatching(llm, { maxNumSeqs: 3, maxNumBatchedTokens: 64 })
    const limits = { maxTextTokens: 10, maxUnits: 12, strict: true }
    const questions = [[1], [2, 3], [4, 5, 6, 6], [7]].map((list) => ({ units: list }))
    const alone = []
    for (const question of questions) alone.push(await usdm.respond(question, limits))
    expect(await Promise.all(questions.map((question) => usdm.respond(question, { ...limits, batching })))).toEqual(
      alone,
    )
  })
})

describe('speech', () => {
  it('is made of all units at once, in the voice of a clip', async () => {
    const { usdm, voicebox } = speaking()
    const reply = await usdm.respond(QUESTION, { steps: 6, seed: 3 })
    expect(reply.wav?.sampleRate).toBe(22_050)
    expect(reply.wav?.samples).toHaveLength(unitFrames(8) * 256)
    expect(Math.max(...reply.wav!.samples.map(Math.abs))).toBeLessThanOrEqual(1)
    expect(Math.max(...reply.wav!.samples.map(Math.abs))).toBeGreaterThan(0)
    expect(voicebox.calls).toEqual([
      { prompt: 0, frames: 13, steps: 6, seed: 3, units: [...frameUnits([5, 6, 7, 8, 9, 10, 11, 12])] },
    ])
    const reference = { samples: chirp(0.5, 2, 44_100), sampleRate: 44_100 }
    voicebox.calls = []
    await usdm.respond(QUESTION, { reference })
    const heard = await usdm.hear(reference)
    const [call] = voicebox.calls
    expect(call).toMatchObject({ prompt: unitFrames(heard.length), frames: unitFrames(heard.length) + 13 })
    expect(call?.units.slice(0, call.prompt)).toEqual([...frameUnits(heard)])
    using voice = await usdm.voice(reference)
    expect(voice.mel.shape).toEqual([1, 80, unitFrames(heard.length)])
    voicebox.calls = []
    await usdm.respond(QUESTION, { reference: voice })
    expect(voicebox.calls[0]?.units).toEqual(call?.units)
  })

  it('takes solver, steps and guidance, whole and in pieces, and else those of the original', async () => {
    const { usdm, voicebox } = speaking()
    const chosen = { steps: 3, solver: 'euler', guidance: 0.5 } as const
    await usdm.respond(QUESTION, chosen)
    await eventsOf(usdm.stream(QUESTION, { ...chosen, firstUnits: 4, chunkUnits: 2 }))
    expect(voicebox.calls).toHaveLength(4)
    for (const call of voicebox.calls) expect(call).toMatchObject(chosen)
    const real = tinySpeech().voicebox
    const mels: number[][] = []
    class Listener extends TinyVocoder {
      override forward(inputs: { mel: Tensor }) {
        mels.push(inputs.mel.flatten().toArray() as number[])
        return super.forward(inputs)
      }
    }
    const whole = scripted({}, { voicebox: real, vocoder: new Listener() })
    const batches: number[] = []
    const forward = real.forward.bind(real)
    real.forward = (inputs) => {
      batches.push(inputs.units.size(0))
      return forward(inputs)
    }
    await whole.respond(QUESTION, { seed: 3 })
    // 25 steps of Heun's method, of which the last is one of Euler; beside the reply stands one without units.
    expect(batches).toEqual(new Array(49).fill(2))
    await whole.respond(QUESTION, { seed: 3, steps: 50, solver: 'heun', guidance: 1 })
    expect(mels[1]).toEqual(mels[0])
    for (const change of [{ steps: 48 }, { solver: 'euler' as const }, { guidance: 1.1 }]) {
      await whole.respond(QUESTION, { seed: 3, ...change })
      expect(mels.at(-1)).not.toEqual(mels[0])
    }
  })

  it('comes in pieces while units are still written, each with what was said before as its prompt', async () => {
    const voicebox = new TinyVoicebox()
    const usdm = scripted({ '<|unit12|>': '<|unit5|>' }, { voicebox, vocoder: new TinyVocoder() })
    const options = { maxUnits: 60, firstUnits: 10, chunkUnits: 20, steps: 2 }
    const events = await eventsOf(usdm.stream(QUESTION, options))
    const kinds = events.map(({ type }) => type)
    expect([...new Set(kinds)]).toEqual(['question', 'transcript', 'text', 'speech', 'reply'])
    const growing = (type: 'transcript' | 'text') =>
      events.flatMap((event) => (event.type === type ? [event.text] : []))
    expect(growing('transcript')).toEqual(['h', 'hi', 'hi!', 'hi!'])
    expect(growing('text')).toEqual(['o', 'ok', 'ok.', 'ok.'])
    expect(voicebox.calls.map(({ prompt, frames }) => [prompt, frames - prompt])).toEqual([
      [0, unitFrames(10)],
      [unitFrames(10), unitFrames(30) - unitFrames(10)],
      [unitFrames(30), unitFrames(50) - unitFrames(30)],
      [unitFrames(50), unitFrames(60) - unitFrames(50)],
    ])
    const reply = events.at(-1)
    if (reply?.type !== 'reply') throw new Error('no reply')
    const parts = events.flatMap((event) => (event.type === 'speech' ? [event] : []))
    expect(parts.flatMap(({ units }) => units)).toEqual(reply.reply.units)
    // The first piece is there when ten of the sixty units are.
    expect(parts.map(({ units }) => units.length)).toEqual([10, 20, 20, 10])
    const samples = parts.flatMap((part) => (part.samples ? [...part.samples] : []))
    expect(samples).toHaveLength(256 * unitFrames(60))
    expect(samples).toEqual([...reply.reply.wav!.samples])
    // The text is that of the whole.
    const whole = await usdm.respond(QUESTION, { maxUnits: 60, audio: false })
    expect({ ...reply.reply, wav: null }).toEqual(whole)
    // A vocoder that has no pieces gives one.
    const griffinLim = scripted({}, { voicebox, vocoder })
    const one = await eventsOf(griffinLim.stream(QUESTION, { firstUnits: 2, chunkUnits: 3, steps: 1 }))
    const sounds = one.flatMap((event) => (event.type === 'speech' && event.samples ? [event.samples.length] : []))
    expect(sounds).toEqual([256 * unitFrames(8)])
  })

  it('is told from text alone: without its parts a reply has units, and asking for sound is refused', async () => {
    const silent = scripted()
    expect(silent.speaks).toBe(false)
    await expect(silent.respond(QUESTION, { audio: true })).rejects.toThrow(
      /expected a Usdm with a Voicebox for audio: true/,
    )
    await expect(silent.respond(QUESTION, { steps: 5 })).rejects.toThrow(/expected steps only with audio/)
    await expect(silent.voice(chirp(0.5))).rejects.toThrow(ConfigError)
    const half = scripted({}, { voicebox: new TinyVoicebox() })
    await expect(half.respond(QUESTION, { audio: true })).rejects.toThrow(/expected a Usdm with a vocoder/)
    const { usdm, voicebox } = speaking()
    expect((await usdm.respond(QUESTION, { audio: false })).wav).toBeNull()
    expect(voicebox.calls).toEqual([])
  })

  it('of no units is an error that has the text', async () => {
    const { usdm } = speaking({ '<|correspond|>': ['h', '\n'] })
    await expect(usdm.respond(QUESTION)).rejects.toMatchObject({
      name: 'DataError',
      message: expect.stringMatching(/expected a reply with units, got none for "ok\."/),
      text: 'ok.',
      transcript: 'hi!',
    })
    await expect(eventsOf(usdm.stream(QUESTION))).rejects.toThrow(DataError)
    expect((await usdm.respond(QUESTION, { audio: false })).units).toEqual([])
  })
})

describe('a signal', () => {
  it('ends a reply within a token, a step of the Voicebox, or the encoder, and everything is freed', async () => {
    const { usdm, voicebox } = speaking({ '<|unit12|>': '<|unit5|>' })
    await usdm.respond(QUESTION, { maxUnits: 8, steps: 2 })
    const before = await settledTensors()
    const { kvCacheBytes } = memoryStats()
    const abortAt = async (when: (event: UsdmEvent, stop: () => void) => void, options: object = {}) => {
      const controller = new AbortController()
      const seen: UsdmEvent[] = []
      const run = async () => {
        const { signal } = controller
        for await (const event of usdm.stream(QUESTION, { maxUnits: 500, steps: 8, ...options, signal })) {
          seen.push(event)
          when(event, () => controller.abort(new Error('enough')))
        }
      }
      await expect(run()).rejects.toThrow('enough')
      return seen
    }
    const first = await abortAt((event, stop) => event.type === 'transcript' && stop())
    expect(first.filter(({ type }) => type === 'transcript')).toHaveLength(1)
    const second = await abortAt((event, stop) => event.type === 'text' && stop())
    expect(second.filter(({ type }) => type === 'text')).toHaveLength(1)
    await abortAt((event, stop) => event.type === 'question' && stop())
    // Between two units, where nobody speaks them.
    const third = new AbortController()
    const told: number[] = []
    const write = async () => {
      const options = { maxUnits: 500, audio: false, signal: third.signal }
      for await (const event of usdm.stream(QUESTION, options)) {
        if (event.type !== 'speech') continue
        told.push(...event.units)
        if (told.length === 3) third.abort(new Error('enough'))
      }
    }
    await expect(write()).rejects.toThrow('enough')
    expect(told).toEqual([5, 6, 7])
    // In the middle of a piece of speech.
    const controller = new AbortController()
    let steps = 0
    voicebox.onStep = (step) => {
      steps += 1
      if (step === 3) controller.abort(new Error('enough'))
    }
    await expect(usdm.respond(QUESTION, { maxUnits: 40, steps: 8, signal: controller.signal })).rejects.toThrow(
      'enough',
    )
    expect(steps).toBe(4)
    voicebox.onStep = () => {}
    // While the clip is heard, and before anything.
    const early = new AbortController()
    const hearing = usdm.respond(chirp(2), { signal: early.signal })
    early.abort(new Error('enough'))
    await expect(hearing).rejects.toThrow('enough')
    await expect(usdm.respond(QUESTION, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
    // Leaving the loop.
    for await (const { type } of usdm.stream(QUESTION, { maxUnits: 500, steps: 2 })) if (type === 'speech') break
    for await (const { type } of usdm.stream(QUESTION, { maxUnits: 500 })) if (type === 'transcript') break
    await expect.poll(() => settledTensors()).toBe(before)
    expect(memoryStats().kvCacheBytes).toBe(kvCacheBytes)
    expect((await usdm.respond(QUESTION, { maxUnits: 8, steps: 2 })).text).toBe('ok.')
  }, 300_000)

  it('leaves a cache usable', async () => {
    const usdm = new Usdm({ llm: tinyLlm(tokenizer.vocabSize), tokenizer, units })
    const limits = { maxTextTokens: 10, maxUnits: 12, strict: true }
    using cache = new UsdmCache()
    const whole = await usdm.respond(QUESTION, limits)
    for (const kind of ['transcript', 'text', 'speech']) {
      const controller = new AbortController()
      const run = async () => {
        for await (const { type } of usdm.stream(QUESTION, { ...limits, cache, signal: controller.signal })) {
          if (type === kind) controller.abort()
        }
      }
      await expect(run()).rejects.toThrow(/abort/i)
      expect(await usdm.respond(QUESTION, { ...limits, cache })).toEqual(whole)
    }
    const stream = usdm.stream(QUESTION, { ...limits, cache })
    await stream.next()
    await expect(usdm.respond(QUESTION, { cache })).rejects.toThrow(/got one that another reply is using/)
    await stream.return()
    expect(await usdm.respond(QUESTION, { ...limits, cache })).toEqual(whole)
  })
})

describe('bad input', () => {
  it('clips: too short, silent, NaN, stereo, at 8 and 48 kHz, missing', async () => {
    const { usdm } = speaking()
    const options = { maxUnits: 4, steps: 1 }
    const before = await settledTensors()
    const fails = async (question: unknown, error: RegExp) => {
      const call = usdm.respond(question as never, options)
      await expect(call.then(() => 'answered')).rejects.toThrow(error)
      await expect(call).rejects.toMatchObject({ code: expect.stringMatching(/^ERR_(DATA|CONFIG)$/) })
      expect(await settledTensors()).toBe(before)
    }
    await fails(new Float32Array(398), /expected at least 399 samples at 16 kHz, one unit, got 398/)
    await fails(new Float32Array(0), /has no samples/)
    await fails(chirp(0.5).fill(Number.NaN, 100, 101), /contains NaN or infinities, the first at sample 100/)
    await fails(join(folder, 'missing.wav'), /missing\.wav/)
    writeFileSync(join(folder, 'text.wav'), 'no sound at all, only words')
    await fails(join(folder, 'text.wav'), /text\.wav/)
    for (const wrong of [undefined, null, 7, {}, [chirp(1)], { units: null }]) await fails(wrong, /./)
    await fails({ units: [] }, /expected units of speech for the user, got none/)
    await fails({ units: [UNITS] }, /expected a unit from 0 to 39, got 40/)
    await fails({ units: [1.5] }, /expected a unit .*, got 1.5/)
    const good: unknown[] = [
      new Float32Array(400).fill(0.1),
      new Float32Array(8000),
      { samples: chirp(0.5, 0, 8000), sampleRate: 8000 },
      { samples: chirp(0.5, 0, 48_000), sampleRate: 48_000 },
      { samples: tensor([[...chirp(0.5)], [...chirp(0.5, 1)]]), sampleRate: 16_000 },
    ]
    for (const question of good) {
      const reference = question === good[0] ? undefined : question
      const reply = await usdm.respond(question as never, { ...options, reference: reference as never })
      expect(reply.units).toEqual([5, 6, 7, 8])
      expect(reply.wav?.samples.every(Number.isFinite)).toBe(true)
    }
    const stereo = join(folder, 'stereo.wav')
    await writeWav(stereo, tensor([[...chirp(0.4)], [...chirp(0.4)]]), { sampleRate: 16_000, format: 'float32' })
    expect([...(await usdm.hear(stereo))]).toEqual([...(await usdm.hear(chirp(0.4)))])
    for (const samples of [100, 400]) {
      const short = usdm.respond(QUESTION, { ...options, reference: new Float32Array(samples) })
      await expect(short).rejects.toThrow(
        /expected (at least 399 samples|a reference clip of at least 2 frames of 256 samples)/,
      )
      await expect(short).rejects.toBeInstanceOf(DataError)
    }
  })

  it('a recording of an hour is refused before it is heard, and as long as there is room for is not', async () => {
    // Silence that takes no room on the disk.
    const hour = join(folder, 'hour.wav')
    const bytes = 3600 * 16_000 * 2
    const header = Buffer.from('RIFF....WAVEfmt ....................data....', 'latin1')
    for (const [at, value] of [[4, 36 + bytes], [16, 16], [24, 16_000], [28, 32_000], [40, bytes]] as const) header.writeUInt32LE(value, at) // biome-ignore format: one line
    for (const [at, value] of [[20, 1], [22, 1], [32, 2], [34, 16]] as const) header.writeUInt16LE(value, at) // biome-ignore format: one line
    writeFileSync(hour, header)
    truncateSync(hour, 44 + bytes)
    const { usdm } = speaking()
    const passes = vi.spyOn(units.encoder, 'states')
    try {
      const before = await settledTensors()
      const most = 2048 - (usdmPrompt(tokenizer, { units: [0] }).length - 1) - 1
      const long = `hour\\.wav: expected at most ${most} units, got 179999, from 3600\\.0 s of audio`
      for (const ask of [() => usdm.respond(hour, { maxUnits: 4 }), () => usdm.hear(hour)]) {
        const refused = { name: 'DataError', message: expect.stringMatching(new RegExp(long)) }
        await expect(ask().then(() => 'heard')).rejects.toMatchObject(refused)
      }
      // Nor is an hour a voice, which every evaluation of the Voicebox would read.
      for (const ask of [() => usdm.respond({ units: [1] }, { reference: hour }), () => usdm.voice(hour)]) {
        const refused = {
          name: 'DataError',
          message: expect.stringMatching(/expected a reference clip of at most 60 s/),
        }
        await expect(ask().then(() => 'heard')).rejects.toMatchObject(refused)
      }
      const second = { samples: chirp(1.01), sampleRate: 16_000 }
      await expect(usdm.voice(second, { maxSeconds: 1 })).rejects.toThrow(/at most 1 s.*set maxSeconds/)
      await expect(usdm.voice(second, { maxSeconds: -1 })).rejects.toThrow(/maxSeconds/)
      expect(passes).not.toHaveBeenCalled()
      const voice = await usdm.voice(second, { maxSeconds: 2 })
      expect(voice.frames.length).toBeGreaterThan(80)
      expect(passes).toHaveBeenCalledTimes(1)
      passes.mockClear()
      voice.dispose()
      expect(await settledTensors()).toBe(before)
      // A history takes of the room.
      const history = [{ user: { text: 'hi!', units: [1] }, agent: { text: 'ok.', units: new Int32Array(most - 300) } }]
      await expect(usdm.respond(chirp(8), { history })).rejects.toThrow(
        /expected at most \d+ units, got 399, from 8\.0 s of audio/,
      )
      expect(passes).not.toHaveBeenCalled()
      // The last that there is room for has one token of an answer.
      const samples = new Float32Array(400 + 320 * (most - 1))
      const longer = new Float32Array(samples.length + 320)
      await expect(usdm.hear(longer)).rejects.toThrow(`expected at most ${most} units, got ${most + 1}`)
      const heard = await usdm.hear(samples)
      expect(heard).toHaveLength(most)
      const limits = { maxTextTokens: 1, maxUnits: 1, audio: false }
      await expect(usdm.respond({ units: heard }, limits)).rejects.toThrow(/fewer than 2048 tokens/)
    } finally {
      passes.mockRestore()
    }
  }, 300_000)

  it('options and histories', async () => {
    const { usdm } = speaking()
    const wrong: [object, RegExp][] = [
      [{ maxunits: 4 }, /maxunits.*maxUnits/],
      [{ maxUnits: 0 }, /maxUnits to be an integer of at least 1/],
      [{ maxTextTokens: 1.5 }, /maxTextTokens/],
      [{ steps: -1 }, /steps/],
      [{ sampling: { temperature: -1 } }, /sampling: expected temperature/],
      [{ sampling: { topP: 2 } }, /sampling: expected topP/],
      [{ sampling: { topk: 2 } }, /topk/],
      [{ strict: 'yes' }, /strict to be a boolean/],
      [{ solver: 'midpoint' }, /solver/],
      [{ guidance: Number.NaN }, /guidance/],
      [{ cache: {} }, /cache to be a UsdmCache/],
      [{ signal: {} }, /signal/],
      [{ history: 'none' }, /history/],
      [
        { history: [{ user: { text: 'a', units: [1] }, agent: { text: 'b', units: [] } }] },
        /expected units of speech for the agent/,
      ],
      [
        { history: [{ user: { text: 7, units: [1] }, agent: { text: 'b', units: [1] } }] },
        /turns\[0\]\.user\.text to be a string/,
      ],
    ]
    for (const [options, error] of wrong) await expect(usdm.respond(QUESTION, options)).rejects.toThrow(error)
    await expect(usdm.respond(QUESTION, { firstUnits: 3 } as object)).rejects.toThrow(/firstUnits/)
    await expect(eventsOf(usdm.stream(QUESTION, { firstUnits: 0 }))).rejects.toThrow(/firstUnits/)
  })

  it('parts that do not fit each other', async () => {
    const llm = scriptedLlm(tokenizer)
    await expect(
      Usdm.fromPretrained({
        llm: join(folder, 'text'),
        encoder: units.encoder.network,
        kmeans: units.kmeans,
        layer: 2,
      }),
    ).rejects.toThrow(/expected a tokenizer with <\|correspond\|>/)
    expect(() => new Usdm({ llm: tinyLlm(100), tokenizer, units })).toThrow(
      /at least 301 embeddings, one per token, got 100/,
    )
    const source = { llm, tokenizer, encoder: units.encoder.network, layer: 2 }
    await expect(Usdm.fromPretrained({ ...source, kmeans: randn([units.kmeans.dim, UNITS]) })).rejects.toThrow(
      /expected centroids \[clusters, .*Transpose them/,
    )
    await expect(Usdm.fromPretrained({ ...source, kmeans: randn([7, units.kmeans.dim]) })).rejects.toThrow(
      /units in the tokenizer, 40, got 7/,
    )
    const voicebox = Object.assign(new TinyVoicebox(), { config: { nTokens: 50 } })
    expect(() => new Usdm({ llm, tokenizer, units, voicebox })).toThrow(
      /expected a Voicebox with 40 units, like the tokenizer, got 50/,
    )
    const other = Object.assign(new GriffinLimVocoder(), { sampleRate: 24_000 })
    expect(() => new Usdm({ llm, tokenizer, units, vocoder: other })).toThrow(/got 256 at 24000 Hz/)
    await expect(Usdm.fromPretrained({ ...source, kmean: 1 } as never)).rejects.toThrow(/kmean/)
    await expect(Usdm.fromPretrained({ ...source, kmeans: units.kmeans }, { offload: true })).rejects.toThrow(
      /expected a device with offload/,
    )
    for (const wrong of [undefined, 7, {}]) {
      await expect(Usdm.fromPretrained(wrong as never)).rejects.toThrow(ConfigError)
      expect(() => new Usdm(wrong as never)).toThrow(ConfigError)
    }
    const plain = await Tokenizer.fromPretrained(join(folder, 'text'))
    expect(() => new Usdm({ llm, tokenizer: plain as never, units })).toThrow(/a UsdmTokenizer/)
  })
})
