import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { transcribeRule } from '../../lib/cli/transcribe.js'
import { AudioLM, type AudioLMConfig, Tokenizer, tensor, VoxtorchError, writeWav } from '../../lib/index.js'
import { familyOf } from '../../lib/models/audio-lm/config.js'
import { fixture, fixturePath, settledTensors } from '../helpers.js'
import { samplesOf } from './audio-lm.js'
import { get } from './decoder.js'
import { camelKeys } from './networks.js'

interface Case {
  name: string
  family: string
  options?: { prompt?: string; language?: string }
  template?: string
  text?: string
  answer?: string
  parsed?: { text: string; language: string | null }
}

const { cases } = await fixture<Case>('models/audio-lm-transcribe')
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-audio-lm-transcribe-'))
afterAll(() => rmSync(directory, { recursive: true }))

const bytes = () => Tokenizer.fromPretrained(fixturePath('models/audio-lm-folder-qwen2_audio'))

/** A model of a family with random weights, and the tokenizer of bytes. */
async function open(family: string, template: string | null = get(get(cases[0]).template)): Promise<AudioLM> {
  const file = await fixture<{ config: Record<string, unknown> }>(`models/audio-lm-${family}`)
  const config = camelKeys(get(file.cases[0]).config) as AudioLMConfig
  const { key } = familyOf(config).token
  const textConfig = { ...config.textConfig, vocabSize: 263, maxPositionEmbeddings: 1024, eosTokenId: 258 }
  const model = AudioLM.fromConfig({ ...config, [key]: 260, textConfig } as AudioLMConfig, { seed: 7 }).eval()
  model.tokenizer = await bytes()
  model.tokenizer.chatTemplate = template
  return model
}

/** The prompts that a model's transcriptions generate from, with one audio token for each clip. */
async function promptsOf(model: AudioLM, run: () => Promise<unknown>): Promise<string[]> {
  const prompts: string[] = []
  const generate = model.generate.bind(model)
  const spy = vi.spyOn(model, 'generate').mockImplementation((inputs, ...rest) => {
    for (const row of inputs.inputIds.toArray() as bigint[][]) {
      const text = get(model.tokenizer).decode(row.map(Number), { skipSpecialTokens: false })
      prompts.push(text.replace(/^(<\|endoftext\|>)*/, '').replace(/(<\|AUDIO\|>)+/, '<|AUDIO|>'))
    }
    return generate(inputs, ...rest)
  })
  try {
    await run()
    return prompts
  } finally {
    spy.mockRestore()
  }
}

describe('requests of the processors', () => {
  it.each(cases.filter(({ text }) => text))('$name', async ({ family, options, template, text }) => {
    using model = await open(family, template)
    const prompts = await promptsOf(model, () => model.transcribe(samplesOf(9000), { maxNewTokens: 1, ...options }))
    expect(prompts).toEqual([text])
  })

  it.each(cases.filter(({ answer }) => answer))('$name', ({ family, answer, parsed }) => {
    const { parse } = familyOf({ modelType: family }).transcription
    expect(get(parse)(get(answer).trim())).toEqual(parsed)
  })

  it('those of model cards', async () => {
    const granite = await open('granite_speech', "{% for m in messages %}{{ m['content'] + '|' }}{% endfor %}")
    const said = (model: AudioLM, options = {}) =>
      promptsOf(model, () => model.transcribe(samplesOf(9000), { maxNewTokens: 1, ...options }))
    expect(await said(granite)).toEqual(['<|AUDIO|>can you transcribe the speech into a written format?|'])
    const qwen = await open('qwen2_audio')
    const vad = async () => [[0, 0.2]] as [number, number][]
    const prompts = await said(qwen, { vad, language: 'de' })
    expect(prompts).toHaveLength(1)
    expect(prompts[0]).toContain('Detect the language and recognize the speech: <|de|><|im_end|>')
    const voxtral = await open('voxtral', null)
    get(voxtral.tokenizer).chatTemplate = '[INST]{% for m in messages %}<|AUDIO|>{% endfor %}[/INST]'
    expect(await said(voxtral, { language: 'EN' })).toEqual(['[INST]<|AUDIO|>[/INST]lang:en[TRANSCRIBE]'])
    await expect(voxtral.transcribe(samplesOf(9000), { prompt: 'x' })).rejects.toThrow(
      /prompt: expected none for voxtral/,
    )
    // Clips of a conversation are tokens in its text.
    const parts = [{ type: 'audio' as const, audio: samplesOf(9000) }, 'Who?']
    const { inputIds } = await granite.prepare([{ role: 'user', content: parts }])
    const row = (inputIds.toArray() as bigint[][])[0] as bigint[]
    expect(get(granite.tokenizer).decode(row.map(Number))).toMatch(/Who\?\|$/)
  })
})

describe('transcribe', () => {
  it('gives the same in batches and alone, and cuts long recordings at pauses', async () => {
    using model = await open('qwen3_asr')
    const clips = [samplesOf(16000), samplesOf(9000), samplesOf(30000)]
    const alone = []
    for (const clip of clips) alone.push(await model.transcribe(clip, { maxNewTokens: 8 }))
    expect(await model.transcribe(clips, { maxNewTokens: 8, batchSize: 2 })).toEqual(alone)
    expect(get(alone[0]).segments).toEqual([{ start: 0, end: 1, text: get(alone[0]).text, isComplete: false }])
    const vad = async () =>
      [
        [0, 0.8],
        [1, 1.875],
      ] as [number, number][]
    const { segments, text } = await model.transcribe(get(clips[2]), { chunkSeconds: 1, maxNewTokens: 4, vad })
    expect(segments.map(({ start, end }) => [start, end])).toEqual([
      [0, 0.8],
      [1, 1.875],
    ])
    expect(text).toBe(segments.flatMap((one) => (one.text === '' ? [] : [one.text])).join(' '))
    const { skipped } = await model.transcribe(get(clips[2]), { chunkSeconds: 1, maxNewTokens: 1, vad })
    expect(skipped).toEqual([{ start: 0.8, end: 1 }])
    const pause = async () =>
      [
        [0, 0.8],
        [1, 1.05],
      ] as [number, number][]
    const short = await model.transcribe(get(clips[2]), { chunkSeconds: 1, maxNewTokens: 4, vad: pause })
    expect(short.segments[1]).toEqual({ start: 1, end: 1.05, text: '', isComplete: true })
    const blip = await model.transcribe([samplesOf(300), get(clips[1])], { maxNewTokens: 8, batchSize: 2 })
    expect(blip.map(({ text }) => text)).toEqual(['', get(alone[1]).text])
    const [first] = await model.transcribe([tensor([...samplesOf(16000).slice(0, 12800)])], { maxNewTokens: 4 })
    expect(get(first).text).toBe(get(segments[0]).text)
    const named = await model.transcribe(get(clips[0]), { language: 'fr', maxNewTokens: 1 })
    expect(named.language).toBe('French')
    expect(await model.transcribe([])).toEqual([])
  })

  it('refuses wrong options by name, and leaves no tensor', async () => {
    using model = await open('audioflamingo3')
    const refused = (options: object, message: RegExp, clip: unknown = samplesOf(3000)) =>
      expect(model.transcribe(clip as never, options)).rejects.toThrow(message)
    await model.transcribe(samplesOf(3000), { maxNewTokens: 1 })
    const before = await settledTensors()
    await refused({ language: 'en' }, /language: expected none for audioflamingo3/)
    await refused({ chunkSeconds: 3600 }, /chunkSeconds: expected at most 4\.8 for audioflamingo3, got 3600/)
    await refused({ batchSize: 0 }, /batchSize/)
    await refused({ words: true }, /words/)
    await refused({ prompt: 'a <|AUDIO|> token' }, /expected 2 clips/)
    await refused({ maxNewTokens: 5000 }, /at most 1024 tokens.*chunkSeconds/)
    await refused({}, /nowhere\.wav/, join(directory, 'nowhere.wav'))
    await refused({}, /nowhere\.wav/, [samplesOf(3000), join(directory, 'nowhere.wav')])
    await refused({ signal: AbortSignal.abort(new Error('enough')) }, /enough/)
    using qwen = await open('qwen3_asr')
    await expect(qwen.transcribe(samplesOf(9000), { language: 'xx' })).rejects.toThrow(
      /expected language to be one of ar, yue/,
    )
    qwen.dispose()
    expect(await settledTensors()).toBeLessThanOrEqual(before)
    model.tokenizer = null
    await refused({}, /tokenizer/)
  })
})

it('voxtorch transcribe --model FOLDER', async () => {
  const folder = join(directory, 'flamingo')
  const model = await open('audioflamingo3')
  await model.save(folder)
  const clips = join(directory, 'clips')
  mkdirSync(clips)
  for (const [name, count] of [
    ['b', 5000],
    ['a', 3000],
  ] as const) {
    await writeWav(join(clips, `${name}.wav`), tensor([...samplesOf(count)]), { sampleRate: 16000 })
  }
  writeFileSync(join(clips, 'notes.txt'), 'no audio')
  const files = ['a', 'b'].map((name) => join(clips, `${name}.wav`))
  const lines: string[] = []
  const told: string[] = []
  const log = vi.spyOn(console, 'log').mockImplementation((line: string) => void lines.push(line))
  const error = vi.spyOn(console, 'error').mockImplementation((line: string) => void told.push(line))
  try {
    const run = (options: object, paths = [clips]) =>
      transcribeRule.run({ model: folder, ...options } as never, paths, {} as never)
    expect(await run({ format: 'json', batchSize: 2, beams: 1 })).toBe(0)
    const expected = await model.transcribe(files)
    expect(lines.map((line) => JSON.parse(line))).toMatchObject(
      expected.map(({ text, language }, i) => ({ file: files[i], text, language })),
    )
    expect(told.some((line) => /cut at its maximum number of tokens/.test(line))).toBe(
      expected.some(({ segments }) => segments.some(({ isComplete }) => !isComplete)),
    )
    lines.length = 0
    expect(await run({}, files.slice(0, 1))).toBe(0)
    expect(lines).toEqual([get(expected[0]).text])
    for (const [options, message] of [
      [{ format: 'srt' }, /--format srt: expected --format text or json for audioflamingo3, which has no timestamps/],
      [{ format: 'json', words: true }, /--words: expected --format text or json/],
      [{ task: 'translate' }, /--task: expected none for audioflamingo3/],
      [{ resampling: 'high' }, /--resampling: expected none/],
      [{ language: 'en' }, /language: expected none for audioflamingo3/],
    ] as const) {
      const failed = await run(options, files.slice(0, 1)).catch((thrown: unknown) => thrown)
      expect(failed).toBeInstanceOf(VoxtorchError)
      expect((failed as Error).message).toMatch(message)
    }
    mkdirSync(join(directory, 'empty'))
    await expect(run({}, [join(directory, 'empty')])).rejects.toThrow(/empty: expected a folder with audio files/)
  } finally {
    log.mockRestore()
    error.mockRestore()
  }
})
