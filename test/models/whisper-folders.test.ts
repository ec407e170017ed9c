import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest'
import {
  loadSafetensors,
  logMelSpectrogram,
  ops,
  saveSafetensors,
  setNumThreads,
  type Tensor,
  tensor,
  Whisper,
} from '../../lib/index.js'
import { fixture, fixturePath, tensorsOf } from '../helpers.js'
import { get } from './decoder.js'

type Json = Record<string, unknown>
interface Clip {
  prompt: number[]
  tokens: number[]
}
/** What transformers makes of such folders; see test/reference/whisper_folders.py. */
const written: {
  cases: { name: string; generation: Json | null; network: Json; clips: Clip[] }[]
  keys: Json
  added: { rows: number[][]; clips: { tokens: number[]; text: string }[] }
  timed: { letters: number[]; clips: number[][]; as_timestamps: number[][] }
} = JSON.parse(readFileSync(fixturePath('models/whisper-folders.json'), 'utf8'))

setNumThreads(1)

const waves = await fixture<{ name: string }>('models/whisper-generation')
const clipOf = (i: number) =>
  get(tensorsOf(waves, `wave-${i}-1-None-False`, 'in').wave)
    .narrow(0, 0, 6400)
    .to('float32')
    .div(32768)
const once = { temperature: 0, logprobThreshold: null, noSpeechThreshold: null, compressionRatioThreshold: null }

const root = mkdtempSync(join(tmpdir(), 'voxtorch-whisper-'))
let folders = 0
afterAll(() => rmSync(root, { recursive: true, force: true }))
afterEach(() => vi.restoreAllMocks())

const readJson = (path: string): Json => JSON.parse(readFileSync(path, 'utf8'))

/** A copy of whisper-tiny with other files beside its weights. */
function folderWith(generation: Json | null, network: Json = {}): string {
  folders += 1
  const folder = join(root, String(folders))
  cpSync(fixturePath('models/whisper-tiny'), folder, { recursive: true })
  const config = readJson(join(folder, 'config.json'))
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, ...network }))
  const file = join(folder, 'generation_config.json')
  if (generation === null) rmSync(file)
  else writeFileSync(file, JSON.stringify({ ...readJson(file), ...generation }))
  return folder
}

/** The same with two text tokens behind the timestamps. */
async function folderWithAdded(generation: Json): Promise<string> {
  const folder = folderWith(generation, { vocab_size: 58 })
  const file = join(folder, 'model.safetensors')
  const { tensors } = await loadSafetensors(file)
  const name = 'model.decoder.embed_tokens.weight'
  tensors[name] = ops.cat([get(tensors[name]), tensor(written.added.rows)])
  await saveSafetensors(file, tensors)
  const tokenizer = readJson(join(folder, 'tokenizer.json')) as { added_tokens: Json[] }
  const plain = { special: false, single_word: false, lstrip: false, rstrip: false, normalized: true }
  tokenizer.added_tokens.push({ id: 56, content: 'zork', ...plain }, { id: 57, content: '<laugh>', ...plain })
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  return folder
}

/** The prompt of the first window, and what the network writes behind it. */
async function transcribed(model: Whisper, clip: Tensor, timestamps = false): Promise<Clip> {
  const seen: Clip[] = []
  const generate = vi.spyOn(model, 'generate').mockImplementation(async (inputs, ...rest) => {
    const output = await Whisper.prototype.generate.call(model, inputs, ...rest)
    const prompt = (get(inputs.inputIds).select(0, 0).toArray() as bigint[]).map(Number)
    seen.push({ prompt, tokens: withoutEnd(get(output.tokens[0])) })
    return output
  })
  await model.transcribe(clip, { ...once, timestamps })
  generate.mockRestore()
  return get(seen[0])
}

const withoutEnd = (ids: number[]) => (ids.at(-1) === 24 ? ids.slice(0, -1) : ids)

async function generated(model: Whisper, clip: Tensor): Promise<Clip> {
  const mel = await logMelSpectrogram(clip, { nMels: 8, length: 6400 })
  const { tokens } = await model.generate({ inputFeatures: mel.narrow(1, 0, 40).unsqueeze(0) })
  return { prompt: [model.tokens.startOfTranscript], tokens: withoutEnd(get(tokens[0])) }
}

describe('a folder of Whisper, as transformers opens it', () => {
  it.each(written.cases)('$name', async ({ generation, network, clips }) => {
    const model = await Whisper.fromPretrained(folderWith(generation, network))
    // Without a generation_config.json transformers knows no token for languages: the prompt is the start alone.
    const run = get(clips[0]).prompt.length === 1 ? generated : transcribed
    for (const [i, clip] of clips.entries()) {
      expect(await run(model, clipOf(i)), `clip ${i}`).toEqual(clip)
      expect((await generated(model, clipOf(i))).tokens, `clip ${i}, generate`).toEqual(clip.tokens)
    }
  })

  it('saved again, it has the same settings, which transformers reads', async () => {
    for (const { name, generation, network, clips } of written.cases) {
      const model = await Whisper.fromPretrained(folderWith(generation, network))
      const saved = join(root, `saved ${name}`)
      await model.save(saved)
      const again = await Whisper.fromPretrained(saved)
      // A task stands there, so that transformers writes its token.
      expect(again.transcribeDefaults, name).toEqual({ task: 'transcribe', ...model.transcribeDefaults })
      const file = readJson(join(saved, 'generation_config.json'))
      // Without one of these transformers stops after 20 tokens.
      expect(file.max_length ?? file.max_new_tokens, name).toBeGreaterThan(0)
      // A saved folder lists its languages, so that `generate` detects one; what had no list writes the same by `transcribe`.
      const expected = get(clips[0]).prompt.length === 1 ? await transcribed(model, clipOf(0)) : clips[0]
      expect(await transcribed(again, clipOf(0)), name).toEqual(expected)
      expect((await generated(again, clipOf(0))).tokens, name).toEqual(expected?.tokens)
    }
  })

  it('a network by name is saved with the length of its positions', async () => {
    const { vocabSize = 56 } = (await Whisper.fromPretrained(fixturePath('models/whisper-tiny'))).config
    const folder = join(root, 'by name')
    const model = new Whisper({
      vocabSize,
      dModel: 8,
      encoderAttentionHeads: 1,
      decoderAttentionHeads: 1,
      maxTargetPositions: 40,
      eosTokenId: 24,
      decoderStartTokenId: 25,
      padTokenId: 24,
      bosTokenId: 24,
    })
    await model.save(folder)
    expect(readJson(join(folder, 'generation_config.json')).max_length).toBe(40)
  })

  it('keeps text tokens that fine-tuning added, and takes none of them for a timestamp', async () => {
    const model = await Whisper.fromPretrained(await folderWithAdded({ language: 'de' }))
    for (const [i, { tokens, text }] of written.added.clips.entries()) {
      const { segments } = await model.transcribe(clipOf(i), { ...once, timestamps: false })
      expect(segments[0]?.tokens ?? []).toEqual(tokens)
      expect(segments[0]?.text ?? '').toBe(text)
    }
    expect(written.added.clips.some(({ text }) => /zork|<laugh>/.test(text))).toBe(true)
    // Words hold them too.
    const { segments } = await model.transcribe(clipOf(0), { ...once, timestamps: 'word' })
    for (const { text, words = [] } of segments) expect(words.map((word) => word.text).join('')).toBe(text)
  })

  it('writes added tokens by the rules of text where there are timestamps', async () => {
    const suppressed = readJson(fixturePath('models/whisper-tiny/generation_config.json')).suppress_tokens as number[]
    const { letters, clips } = written.timed
    const folder = await folderWithAdded({ language: 'de', suppress_tokens: [...suppressed, ...letters] })
    const model = await Whisper.fromPretrained(folder)
    const tokenizer = get(model.tokenizer)
    let added = 0
    for (const [i, tokens] of clips.entries()) {
      const seen = await transcribed(model, clipOf(i), true)
      expect(seen.tokens, `clip ${i}`).toEqual(tokens)
      const features = await logMelSpectrogram(clipOf(i), { nMels: 8, length: 6400 })
      const inputs = { inputFeatures: features.narrow(1, 0, 40).unsqueeze(0) }
      const { tokens: generated } = await model.generate(inputs, { returnTimestamps: true })
      expect(withoutEnd(get(generated[0])), `clip ${i}, generate`).toEqual(tokens)
      const all = await model.generate(inputs, { returnTimestamps: true, lastTimestampTokenId: null })
      expect(withoutEnd(get(all.tokens[0])), `clip ${i}, all are timestamps`).toEqual(written.timed.as_timestamps[i])
      const { segments } = await model.transcribe(clipOf(i), { ...once, timestamps: true })
      for (const { tokens, text } of segments) {
        expect(text).toBe(tokenizer.decode(tokens.filter((id) => id < 24 || id >= 56)))
        if (tokens.includes(56)) expect(text).toContain('zork')
      }
      added += segments.filter(({ text }) => text.includes('zork')).length
      for (const { start, end } of segments) {
        expect(start).toBeLessThanOrEqual(end)
        expect(end).toBeLessThanOrEqual(0.4)
      }
    }
    expect(added).toBeGreaterThan(0)
  })

  it('refuses what is none of its keys, naming file and key', async () => {
    for (const [generation, message] of [
      [{ language: 'klingon' }, /generation_config.json: language: .*klingon.* It supports de, en, fr\.$/],
      [{ language: ['de', 'en'] }, /language: expected the name or code of one language/],
      [{ task: 'sing' }, /task: expected 'transcribe' or 'translate', got 'sing'|got "sing"/],
      [{ forced_decoder_ids: [[1]] }, /forced_decoder_ids: expected pairs/],
      [{ logprob_threshold: 'low' }, /logprob_threshold: expected a number/],
      [{ condition_on_prev_tokens: 1 }, /condition_on_prev_tokens: expected true or false/],
    ] as const) {
      const opening = Whisper.fromPretrained(folderWith(generation))
      await expect(opening).rejects.toThrow(message)
      await expect(opening).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' })
    }
  })
})

describe('every key of generation_config.json', () => {
  /** Keys that change how transformers computes or returns a text, and not the text. */
  const withoutEffect = [
    ...[
      '_from_model_config',
      '_commit_hash',
      '_original_object_hash',
      'transformers_version',
      'return_dict_in_generate',
    ],
    ...[
      'output_attentions',
      'output_hidden_states',
      'use_cache',
      'cache_implementation',
      'max_cache_len',
      'low_memory',
    ],
    ...['compile_config', 'disable_compile', 'is_assistant', 'num_assistant_tokens_schedule', 'prefill_chunk_size'],
    // Arguments of transformers' Whisper, which does not look for them in the file.
    ...['prompt_condition_type', 'return_token_timestamps'],
  ]
  const camel = (key: string) => key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())

  it.each(Object.entries(written.keys))('%s is used, refused or reported', async (key, value) => {
    const warnings: string[] = []
    vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void warnings.push(String(warning)))
    let model: Whisper
    try {
      model = await Whisper.fromPretrained(folderWith({ [key]: value }))
    } catch (error) {
      // Of the error's message the spelling of the key may be either.
      expect((error as Error).message).toMatch(new RegExp(`${key}|${camel(key)}`))
      return
    }
    const isReported = warnings.some((warning) => warning.includes(key))
    const { generationConfig, transcribeDefaults, alignmentHeads, tokens } = model
    const isUsed =
      JSON.stringify((generationConfig as Json)[camel(key)]) === JSON.stringify(value) ||
      Object.keys(transcribeDefaults).length > 0 ||
      (key === 'alignment_heads' && JSON.stringify(alignmentHeads) === JSON.stringify(value)) ||
      (key === 'decoder_start_token_id' && tokens.startOfTranscript === value) ||
      (key === 'prev_sot_token_id' && tokens.startOfPrevious === value) ||
      (key === 'is_multilingual' && Object.keys(tokens.languages).length === 0) ||
      (key === 'lang_to_id' && JSON.stringify(tokens.languages) === '{"en":26}') ||
      (key === 'task_to_id' && tokens.translate === 29)
    expect([isReported || isUsed || withoutEffect.includes(key), warnings]).toEqual([true, warnings])
    expect(isReported && isUsed).toBe(false)
  })
})
