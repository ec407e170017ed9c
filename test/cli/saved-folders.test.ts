// Every folder that a `save` writes is read by every command that takes such a model.
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { chatModels } from '../../lib/cli/chat-models.js'
import * as vt from '../../lib/index.js'
import { encodersOfArguments } from '../../lib/systems/emotion/configuration/apply.js'
import { emoverseOfArguments } from '../../lib/systems/emoverse/configuration/apply.js'
import type * as sl from '../../lib/systems/salmonn/index.js'
import { usdmTrainedOfArguments } from '../../lib/systems/usdm/configuration/apply.js'
import { fixturePath, numbers } from '../helpers.js'
import { tinyLanguageBind } from '../systems/emotion/tiny.js'
import { tinyEmoVerse } from '../systems/emoverse/tiny.js'

const root = mkdtempSync(join(tmpdir(), 'voxtorch-saved-folders-'))
const published = fixturePath('models/salmonn-published')
const at = (name: string) => join(root, name)

beforeAll(async () => {
  vt.setNumThreads(1)
  vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  // In their order: some are made of others.
  for (const [name, { save }] of Object.entries(FOLDERS)) await save(at(name))
})
afterAll(() => {
  vi.restoreAllMocks()
  rmSync(root, { recursive: true })
})

const SPEECH = {
  ...{ hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 16 },
  ...{
    convDim: [8, 8],
    convKernel: [10, 8],
    convStride: [5, 4],
    numConvPosEmbeddings: 4,
    numConvPosEmbeddingGroups: 2,
  },
}
const TEXT = {
  hiddenSize: 16,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  intermediateSize: 16,
  maxPositionEmbeddings: 24,
}
const WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'hello']

/** What the commands make of a folder; each is freed. */
const COMMANDS = {
  'emotion --text': (text: string) => encodersOfArguments({ text }),
  'emotion --audio': (audio: string) => encodersOfArguments({ text: 'none', audio }),
  'emotion --video': (video: string) => encodersOfArguments({ text: 'none', video }),
  'emotion --video --text': (one: string) => encodersOfArguments({ text: one, video: one }),
  'emotion --video --audio --text': (one: string) => encodersOfArguments({ text: one, audio: one, video: one }),
  'serve text': (folder: string) => chatModels.text!(folder, {}),
  'serve emoverse': (folder: string) => chatModels.emoverse!(folder, {}),
  'serve salmonn': (folder: string) => chatModels.salmonn!(folder, {}),
  'emoverse --model': (model: string) => emoverseOfArguments({ model }),
  'emoverse --speech': (speech: string) => emoverseOfArguments({ model: at('llm'), speech }),
  'usdm finetune --model': (model: string) => usdmTrainedOfArguments({ model, units: 5, dtype: 'float32' }, model),
  'salmonn model.llm': (llm: string) => salmonn({ llm }),
  'salmonn model.whisper': (whisper: string) => salmonn({ whisper }),
  'salmonn model.beats': (beats: string) => salmonn({ beats }),
} as const

const salmonn = (parts: Partial<sl.SalmonnPartsFrom>) =>
  vt.Salmonn.fromPretrained(
    { whisper: at('whisper-encoder'), beats: null, llm: at('llm'), ...parts },
    { config: { qformer: { hiddenSize: 8, numAttentionHeads: 2, intermediateSize: 8 } } },
  )

/** Words for a language model, with the tokens around turns and a template of chats. */
function words({ tokenizer }: { tokenizer: vt.Tokenizer }, folder: string): void {
  tokenizer.chatTemplate = '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}'
  tokenizer.saveTo(folder)
}
const vocabulary = (folder: string) => writeFileSync(join(folder, 'vocab.txt'), `${WORDS.join('\n')}\n`)

const LLM = ['serve text', 'serve emoverse', 'emoverse --model', 'usdm finetune --model', 'salmonn model.llm'] as const
const FOLDERS: Record<string, { save(folder: string): Promise<void>; commands: readonly (keyof typeof COMMANDS)[] }> = {
  llm: {
    async save(folder) {
      using made = await tinyEmoVerse({ seed: 1 })
      await made.model.save(folder)
      words(made, folder)
    },
    commands: LLM,
  },
  'llm in shards': {
    async save(folder) {
      using made = await tinyEmoVerse({ seed: 1 })
      await made.model.save(folder, { maxShardBytes: 4000 })
      words(made, folder)
      expect(readdirSync(folder)).toContain('model.safetensors.index.json')
    },
    commands: LLM,
  },
  'llm in 4 bits': {
    async save(folder) {
      using model = await vt.DecoderLM.fromPretrained(at('llm'), { quantize: 'nf4', dtype: 'float32' })
      await model.save(folder)
      words({ tokenizer: await vt.Tokenizer.fromPretrained(at('llm')) }, folder)
    },
    // Four bits are not trained as a whole.
    commands: LLM.filter((name) => name !== 'usdm finetune --model'),
  },
  emoverse: {
    async save(folder) {
      using model = await emoverseOfArguments({ model: at('llm') })
      await model.save(folder)
    },
    commands: LLM,
  },
  'whisper-encoder': {
    async save(folder) {
      using model = await vt.WhisperEncoder.fromPretrained(join(published, 'whisper'))
      await model.save(folder)
    },
    commands: ['salmonn model.whisper', 'emotion --audio', 'emoverse --speech'],
  },
  salmonn: {
    async save(folder) {
      using model = await salmonn({ beats: join(published, 'beats.pt') })
      await model.save(folder, { whole: true })
    },
    commands: ['serve salmonn'],
  },
  beats: {
    async save(folder) {
      using model = await vt.Beats.fromPretrained(join(published, 'beats.pt'))
      await model.save(folder)
    },
    commands: ['salmonn model.beats'],
  },
  wavlm: {
    async save(folder) {
      using model = vt.WavLM.fromConfig(SPEECH)
      await model.save(folder)
    },
    commands: ['emotion --audio'],
  },
  'wavlm with a head': {
    async save(folder) {
      using model = vt.WavLMForCTC.fromConfig({ ...SPEECH, vocabSize: 8 })
      await model.save(folder)
    },
    commands: ['emotion --audio'],
  },
  bert: {
    async save(folder) {
      using model = vt.Bert.fromConfig({ ...TEXT, vocabSize: WORDS.length })
      await model.save(folder)
      vocabulary(folder)
    },
    commands: ['emotion --text'],
  },
  'languagebind of video': {
    save: (folder) => savedBind(folder, ['video']),
    commands: ['emotion --video', 'emotion --video --text'],
  },
  'languagebind of audio': {
    save: (folder) => savedBind(folder, ['audio']),
    commands: ['emotion --audio'],
  },
  'languagebind of both': {
    save: (folder) => savedBind(folder, ['video', 'audio']),
    commands: ['emotion --audio', 'emotion --video', 'emotion --video --audio --text'],
  },
  'languagebind with adapters': {
    save: (folder) => savedBind(folder, ['video', 'audio'], true),
    commands: ['emotion --audio', 'emotion --video', 'emotion --video --audio --text'],
  },
}

async function savedBind(folder: string, modalities: readonly ('video' | 'audio')[], adapters = false): Promise<void> {
  const from: Record<string, string> = {}
  for (const modality of modalities) from[modality] = await tinyLanguageBind(modality)
  using model = await vt.LanguageBind.fromPretrained(from)
  if (adapters) vt.getPeftModel(model.encoder('video') as vt.ClipVisionModel, { r: 2, targetModules: ['q_proj'] })
  await model.save(folder)
  for (const place of Object.values(from)) rmSync(place, { recursive: true })
}

function freed(value: unknown): void {
  for (const one of [value].flat() as {
    dispose?: () => void
    network?: { dispose(): void }
    model?: { dispose(): void }
  }[]) {
    one.network?.dispose()
    if (!one.network) one.model?.dispose?.()
    one.dispose?.()
  }
}

describe.each(Object.entries(FOLDERS))('a folder of %s', (name, { commands }) => {
  it.each(commands)('is read by %s', async (command) => {
    const made: unknown = await COMMANDS[command](at(name))
    expect(made).toBeTruthy()
    freed(made)
  })
})

describe('a saved LanguageBind', () => {
  const state = (model: vt.LanguageBind, pattern: RegExp) =>
    Object.fromEntries(
      Object.entries(model.stateDict()).flatMap(([name, one]) => (pattern.test(name) ? [[name, numbers(one)]] : [])),
    )

  it('gives a modality the weights that it was saved with, also beside another folder', async () => {
    using whole = await vt.LanguageBind.fromPretrained(at('languagebind of both'))
    using video = await vt.LanguageBind.fromPretrained({ video: at('languagebind of both') })
    const own = /^modality_\w+\.(video|language)\b/
    expect(Object.keys(state(video, own)).length).toBeGreaterThan(20)
    expect(Object.keys(video.config)).toEqual(['video'])
    expect(state(video, /./)).toEqual(state(whole, own))
    using mixed = await vt.LanguageBind.fromPretrained({
      audio: at('languagebind of audio'),
      video: at('languagebind of both'),
    })
    expect(state(mixed, /\.(video|language)\b/)).toEqual(state(whole, own))
    using audio = await vt.LanguageBind.fromPretrained(at('languagebind of audio'))
    expect(state(mixed, /\.audio\b/)).toEqual(state(audio, /\.audio\b/))
  })

  it('without the modality that is asked for, and with adapters beside another, says so', async () => {
    const audio = at('languagebind of audio')
    await expect(vt.LanguageBind.fromPretrained({ video: audio })).rejects.toThrow(
      /config\.json: expected an encoder of video, got audio\. Give the folder of a LanguageBind that has it/,
    )
    const adapted = at('languagebind with adapters')
    await expect(vt.LanguageBind.fromPretrained({ audio, video: adapted })).rejects.toThrow(/Merge them/)
    await expect(vt.LanguageBind.fromPretrained({ image: adapted })).rejects.toThrow(/expected an encoder of image/)
    using kept = await vt.LanguageBind.fromPretrained({ video: adapted })
    expect(kept.namedParameters().some(([name]) => name.includes('lora_'))).toBe(true)
  })
})
