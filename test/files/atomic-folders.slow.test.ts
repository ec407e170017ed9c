// A save of a whole folder replaces all of its files or none. Each saver of several files is in the table.
import fs from 'node:fs'
import promises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { writeFolderAtomically } from '../../lib/base/atomic-folder.js'
import { saveSafetensorsSharded } from '../../lib/files/index.js'
import {
  CheckpointError,
  CtcTokenizer,
  DataError,
  DecoderLM,
  getPeftModel,
  InternVL,
  LanguageBind,
  Linear,
  loadPretrained,
  loadSafetensors,
  type Module,
  manualSeed,
  noGrad,
  PeftModel,
  Sequential,
  savePretrained,
  setNumThreads,
  type Tensor,
  Tokenizer,
  tensor,
  VoxtorchError,
  Wav2Vec2ForCTC,
  Whisper,
} from '../../lib/index.js'
import { operator } from '../../lib/native/call.js'
import { EmotionClassifier } from '../../lib/systems/emotion/network/network.js'
import { EmotionTextEncoder } from '../../lib/systems/emotion/network/text-encoder.js'
import { EmotionFbankEncoder } from '../../lib/systems/emotion/network/voice-encoder.js'
import { EmotionPairClassifier } from '../../lib/systems/emotion/published/pair-network.js'
import { EmoVerse, SpeechBranch } from '../../lib/systems/emoverse/index.js'
import { Salmonn } from '../../lib/systems/salmonn/index.js'
import { SpectraClassifier, SpectraForSequenceClassification, spectraTask } from '../../lib/systems/spectra/index.js'
import { Usdm } from '../../lib/systems/usdm/index.js'
import { tinyBert, tinyLanguageBind } from '../systems/emotion/tiny.js'
import { byteTokenizer, TINY, TINY_EARS, TINY_SEEING } from '../systems/emoverse/tiny.js'
import { tinySalmonn } from '../systems/salmonn/network/tiny.js'
import { smallSpectra } from '../systems/spectra/network.js'
import { tinyTokenizer as tinySpectraTokenizer } from '../systems/spectra/tiny.js'
import { tinyLlm, tinySpeech, tinyTokenizer, tinyUnits } from '../systems/usdm/tiny-parts.js'
import { fromModel } from '../text/helpers.js'

const root = fs.mkdtempSync(join(tmpdir(), 'voxtorch-folders-'))
let count = 0
const newFolder = () => join(root, `${count++}`)
beforeAll(() => {
  setNumThreads(1)
  vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
})
afterAll(() => {
  vi.restoreAllMocks()
  fs.rmSync(root, { recursive: true, force: true })
})

type Save = (folder: string) => void | Promise<void>

interface Saver {
  name: string
  /** Create a network whose weights depend on the factor. */
  make(factor: number): Promise<Save>
  /** Load what was saved and return its numbers. */
  load(folder: string): Promise<unknown>
}

function scaled<M extends Module>(model: M, factor: number): M {
  noGrad(() => {
    for (const parameter of model.parameters()) parameter.mul_(factor)
  })
  return model
}

const numbersOf = (model: Module) =>
  Object.entries(model.stateDict()).map(([name, value]: [string, Tensor]) => [name, String(value.toArray())])

/** A saver of a class with `fromPretrained` and `save`. */
const network = <M extends Module>(
  name: string,
  make: () => M | Promise<M>,
  load: (folder: string) => Promise<M>,
  options: object = {},
): Saver => ({
  name,
  async make(factor) {
    const model = scaled(await make(), factor)
    return (folder) => (model as unknown as { save: (...args: unknown[]) => Promise<void> }).save(folder, options)
  },
  load: async (folder) => numbersOf(await load(folder)),
})

const SPEECH = {
  ...{ hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 12, vocabSize: 8 },
  ...{ convDim: [8, 8], convKernel: [10, 3], convStride: [5, 2], numConvPosEmbeddings: 8 },
  ...{ numConvPosEmbeddingGroups: 2, featExtractNorm: 'layer' as const, doStableLayerNorm: true },
}
const VOCAB = { '<pad>': 0, '<s>': 1, '</s>': 2, '<unk>': 3, '|': 4, A: 5, B: 6, C: 7 }
const CLIP_PART = { numHiddenLayers: 1, hiddenSize: 8, intermediateSize: 12, numAttentionHeads: 2 }
const _IMAGES = {
  textConfig: { ...CLIP_PART, vocabSize: 20, maxPositionEmbeddings: 8 },
  visionConfig: { ...CLIP_PART, imageSize: 8, patchSize: 4 },
  projectionDim: 6,
}
const WHISPER = {
  ...{ dModel: 16, encoderLayers: 1, encoderAttentionHeads: 2, encoderFfnDim: 16, decoderLayers: 1 },
  ...{ decoderAttentionHeads: 2, decoderFfnDim: 16, vocabSize: 20, maxSourcePositions: 10, maxTargetPositions: 8 },
  ...{ padTokenId: 1, bosTokenId: 2, eosTokenId: 3, decoderStartTokenId: 4 },
}

const newDecoder = () => {
  const model = DecoderLM.fromConfig(TINY, { seed: 1 })
  model.generationConfig.temperature = 0.5
  return model
}
const layers = () => {
  manualSeed(1)
  const model = new Sequential(new Linear(3, 4), new Sequential(new Linear(4, 2)))
  getPeftModel(model.get('1'), { r: 2, targetModules: ['0'] })
  return model
}
const textEncoder = async () => EmotionTextEncoder.fromPretrained(await tinyBert(['a', 'b']))
const speechBranch = () => SpeechBranch.begin({ ...TINY_EARS, seed: 1 }, TINY.hiddenSize)
const adapters = (model: DecoderLM) =>
  getPeftModel(model, { r: 2, targetModules: ['q_proj'] }, { adapterName: 'default' })

const savers: Saver[] = [
  {
    name: 'saveSafetensorsSharded',
    make: async (factor) => async (folder) => {
      const tensors = { a: tensor([factor, 2]), b: tensor([factor, 3]), c: tensor([4, factor]) }
      await saveSafetensorsSharded(folder, tensors, { maxShardBytes: 8 })
    },
    async load(folder) {
      const { tensors } = await loadSafetensors(join(folder, 'model.safetensors.index.json'))
      return Object.entries(tensors).map(([name, value]) => [name, value.toArray()])
    },
  },
  network('DecoderLM', newDecoder, (folder) => DecoderLM.fromPretrained(folder), { maxShardBytes: 20_000 }),
  network(
    'Whisper',
    async () => {
      const model = Whisper.fromConfig(WHISPER, { seed: 1 })
      model.tokenizer = await byteTokenizer()
      return model
    },
    (folder) => Whisper.fromPretrained(folder),
  ),
  network(
    'Wav2Vec2ForCTC',
    () => {
      const model = Wav2Vec2ForCTC.fromConfig(SPEECH, { seed: 1 })
      model.tokenizer = new CtcTokenizer({ vocab: VOCAB })
      return model
    },
    (folder) => Wav2Vec2ForCTC.fromPretrained(folder),
  ),
  ...(['published', 'transformers'] as const).map((layout) =>
    network(
      `InternVL, layout ${layout}`,
      () => {
        const model = InternVL.fromConfig({ ...TINY_SEEING, imgContextTokenId: 260 }, { seed: 1 })
        model.generationConfig.temperature = 0.5
        return model
      },
      (folder) => InternVL.fromPretrained(folder),
      { layout },
    ),
  ),
  network(
    'LanguageBind',
    async () => {
      const model = await LanguageBind.fromPretrained(await tinyLanguageBind('image'))
      getPeftModel(model.encoder('text'), { r: 2, targetModules: ['q_proj'] })
      return model
    },
    (folder) => LanguageBind.fromPretrained(folder),
  ),
  {
    name: 'savePretrained',
    async make(factor) {
      const model = scaled(layers(), factor)
      return (folder) => savePretrained(folder, model, {})
    },
    load: async (folder) => numbersOf(await loadPretrained(folder, layers)),
  },
  {
    name: 'PeftModel',
    async make(factor) {
      const model = newDecoder()
      const peft = adapters(model)
      peft.addAdapter('second', { r: 2, targetModules: ['k_proj'] })
      scaled(model, factor)
      return (folder) => peft.savePretrained(folder)
    },
    async load(folder) {
      const model = newDecoder()
      const peft = await PeftModel.fromPretrained(model, folder)
      await peft.loadAdapter(join(folder, 'second'), { adapterName: 'second' })
      return peft.adapterTensors().map((value) => String(value.toArray()))
    },
  },
  {
    name: 'Tokenizer',
    async make(factor) {
      const tokenizer = await byteTokenizer(factor === 1 ? [] : ['<more>'])
      return (folder) => tokenizer.saveTo(folder)
    },
    load: async (folder) => (await Tokenizer.fromPretrained(folder)).vocabSize,
  },
  {
    name: 'CtcTokenizer',
    async make(factor) {
      const tokenizer = new CtcTokenizer({ vocab: factor === 1 ? VOCAB : { ...VOCAB, A: 6, B: 5 } })
      return (folder) => tokenizer.save(folder)
    },
    load: async (folder) => (await CtcTokenizer.fromPretrained(folder)).encode('ABC'),
  },
  network(
    'SPECTRA',
    () => SpectraForSequenceClassification.fromConfig(smallSpectra(10), { seed: 1 }),
    (folder) => SpectraForSequenceClassification.fromPretrained(folder),
  ),
  {
    name: 'SpectraClassifier',
    async make(factor) {
      const model = scaled(SpectraForSequenceClassification.fromConfig(smallSpectra(10), { seed: 1 }), factor)
      const task = spectraTask({ name: 'mood', kind: 'classification', labels: ['calm', `glad ${factor}`] })
      const classifier = new SpectraClassifier(model, { tokenizer: await tinySpectraTokenizer(newFolder()), task })
      return (folder) => classifier.save(folder)
    },
    async load(folder) {
      const { model, labels } = await SpectraClassifier.fromPretrained(folder)
      return [labels, numbersOf(model)]
    },
  },
  {
    name: 'EmotionClassifier',
    async make(factor) {
      const text = await textEncoder()
      const config = { sizes: { text: text.size, audio: 512 }, labels: ['a', 'b'] }
      const model = scaled(new EmotionClassifier(config, { encoders: { text: text as never }, seed: 1 }), factor)
      return (folder) => model.save(folder, [new EmotionFbankEncoder() as never])
    },
    load: async (folder) => numbersOf(await EmotionClassifier.fromPretrained(folder)),
  },
  {
    name: 'EmotionPairClassifier',
    async make(factor) {
      const text = await textEncoder()
      const config = { sizes: { text: text.size }, labels: ['a', 'b'] }
      const model = scaled(new EmotionPairClassifier(config, { encoders: { text: text as never }, seed: 1 }), factor)
      return (folder) => model.save(folder)
    },
    load: async (folder) => numbersOf(await EmotionPairClassifier.fromPretrained(folder)),
  },
  network('SpeechBranch', speechBranch, (folder) => SpeechBranch.fromPretrained(folder)),
  {
    name: 'EmoVerse',
    async make(factor) {
      const parts = { model: scaled(newDecoder(), factor), tokenizer: await byteTokenizer(), system: null }
      const model = new EmoVerse({ ...parts, speech: scaled(await speechBranch(), factor) })
      return (folder) => model.save(folder)
    },
    load: async (folder) => numbersOf((await EmoVerse.fromPretrained(folder)).whole),
  },
  {
    name: 'Usdm',
    async make(factor) {
      const tokenizer = await tinyTokenizer(newFolder())
      const llm = scaled(tinyLlm(tokenizer.vocabSize), factor)
      const usdm = new Usdm({ llm, tokenizer, units: await tinyUnits(), ...tinySpeech() })
      return (folder) => usdm.save(folder)
    },
    load: async (folder) => numbersOf((await Usdm.fromPretrained(folder)).llm),
  },
  {
    name: 'Salmonn',
    async make(factor) {
      const model = scaled(await tinySalmonn(), factor)
      return (folder) => model.save(folder, { whole: true })
    },
    load: async (folder) => numbersOf(await Salmonn.fromPretrained(folder, { dtype: 'float32' })),
  },
]

/** The bytes of all files in a folder. */
function contents(folder: string): Record<string, string> {
  const files = fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => !entry.isDirectory())
  return Object.fromEntries(
    files
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((path) => [relative(folder, path), fs.readFileSync(path, 'latin1')]),
  )
}

/** Make the n-th step fail: each file that is created for writing, natively or by Node, and each rename. */
class Failing {
  steps = 0
  readonly #originals = { open: fs.openSync, rename: fs.renameSync, openLater: promises.open, later: promises.rename }

  constructor(readonly at: number) {
    const step = (path: unknown) => {
      this.steps += 1
      if (this.steps !== at) return
      throw Object.assign(new Error(`ENOSPC: no space left on device, '${path}'`), { code: 'ENOSPC' })
    }
    const { open, rename, openLater, later } = this.#originals
    const counted = (original: unknown, isStep: (flags: unknown) => boolean, isLater: boolean) => {
      const call = (...args: unknown[]): unknown => {
        if (isStep(args[1])) step(args[0])
        return (original as (...args: unknown[]) => unknown)(...args)
      }
      return isLater ? async (...args: unknown[]) => call(...args) : call
    }
    const creates = (flags: unknown) => flags === 'wx'
    const always = () => true
    Object.assign(fs, { openSync: counted(open, creates, false), renameSync: counted(rename, always, false) })
    Object.assign(promises, { open: counted(openLater, creates, true), rename: counted(later, always, true) })
    syncBuiltinESMExports()
    const native = operator('voxtorch::write_file')
    const call = native.callQueued
    native.callQueued = async (self, args) => {
      try {
        step(args[0])
      } catch {
        throw new DataError(`${args[0]} cannot be written: No space left on device`)
      }
      return call.call(native, self, args)
    }
  }

  [Symbol.dispose](): void {
    const { open, rename, openLater, later } = this.#originals
    Object.assign(fs, { openSync: open, renameSync: rename })
    Object.assign(promises, { open: openLater, rename: later })
    syncBuiltinESMExports()
    Reflect.deleteProperty(operator('voxtorch::write_file'), 'callQueued')
  }
}

async function failed(save: Save, folder: string, at: number): Promise<unknown> {
  using _ = new Failing(at)
  try {
    await save(folder)
    return undefined
  } catch (error) {
    return error
  }
}

describe.each(savers)('$name', ({ make, load }) => {
  let old: Save
  let next: Save
  beforeAll(async () => {
    old = await make(1)
    next = await make(1.5)
  })

  test('a save that fails at any step leaves the older one', async () => {
    const folder = newFolder()
    await old(folder)
    const [before, numbers] = [contents(folder), await load(folder)]
    const copy = newFolder()
    fs.cpSync(folder, copy, { recursive: true })
    let steps = 0
    {
      using counting = new Failing(0)
      await next(copy)
      steps = counting.steps
    }
    expect(steps).toBeGreaterThan(2)
    expect(await load(copy)).not.toEqual(numbers)
    for (let at = 1; at <= steps; at++) {
      const error = await failed(next, folder, at)
      expect(error, `step ${at} of ${steps}`).toBeInstanceOf(VoxtorchError)
      expect((error as Error).message).toContain(folder)
      expect(contents(folder), `step ${at} of ${steps}`).toEqual(before)
    }
    expect(await load(folder)).toEqual(numbers)
  })

  test('a save into a new folder that fails leaves nothing', async () => {
    const parent = newFolder()
    for (const at of [1, 2, 3]) {
      expect(await failed(next, join(parent, 'model'), at)).toBeInstanceOf(VoxtorchError)
      expect(fs.existsSync(parent)).toBe(false)
    }
  })

  test('removes weights of an earlier save that had more of them, and no file of the user', async () => {
    const folder = newFolder()
    await old(folder)
    const places = [...new Set(Object.keys(contents(folder)).map((file) => join(folder, dirname(file))))]
    for (const place of places) {
      fs.writeFileSync(join(place, 'README.md'), 'mine')
      fs.writeFileSync(join(place, 'notes.json'), '1')
    }
    const isWeights = (file: string) => /^model\..*safetensors$/.test(file)
    const stale = places
      .filter((place) => fs.readdirSync(place).some(isWeights))
      .map((place) => join(place, 'model-00007-of-00007.safetensors'))
    for (const file of stale) fs.writeFileSync(file, '')
    await next(folder)
    const fresh = newFolder()
    await next(fresh)
    const users = places.flatMap((place) =>
      ['README.md', 'notes.json'].map((name) => relative(folder, join(place, name))),
    )
    expect(Object.keys(contents(folder))).toEqual([...Object.keys(contents(fresh)), ...users].sort())
    expect(await load(folder)).toEqual(await load(fresh))
  })
})

const filesOf = (folder: string) => Object.keys(contents(folder))

describe('a save with fewer parts than the earlier one', () => {
  test('DecoderLM: shards, their index and generation settings', async () => {
    const folder = newFolder()
    const model = newDecoder()
    await model.save(folder, { maxShardBytes: 20_000 })
    expect(filesOf(folder)).toContain('model.safetensors.index.json')
    model.generationConfig = {}
    await model.save(folder)
    expect(filesOf(folder)).toEqual(['config.json', 'model.safetensors'])
  })

  test('savePretrained: adapters, those of the module itself too', async () => {
    const folder = newFolder()
    manualSeed(1)
    const model = new Sequential(new Linear(3, 4), new Sequential(new Linear(4, 2)))
    const [own, part] = ['adapter_config.json', 'adapters/1/adapter_config.json']
    const peft = getPeftModel(model, { r: 2, targetModules: ['0'] })
    await savePretrained(folder, model, {})
    expect(filesOf(folder)).toEqual(expect.arrayContaining(['adapters.json', own]))
    peft.mergeAndUnload()
    const inner = getPeftModel(model.get('1'), { r: 2, targetModules: ['0'] })
    await savePretrained(folder, model, {})
    expect(filesOf(folder)).toContain(part)
    expect(filesOf(folder)).not.toContain(own)
    inner.mergeAndUnload()
    await savePretrained(folder, model, {})
    expect(fs.readdirSync(folder).sort()).toEqual(['config.json', 'model.safetensors'])
    // Without the index, the adapter was saved by somebody else.
    const other = getPeftModel(model, { r: 2, targetModules: ['0'] })
    await other.savePretrained(folder)
    other.unload()
    await savePretrained(folder, model, {})
    expect(filesOf(folder)).toContain(own)
  })

  test('EmoVerse: the speech branch', async () => {
    const folder = newFolder()
    const parts = { model: newDecoder(), tokenizer: await byteTokenizer(), system: null }
    await new EmoVerse({ ...parts, speech: await speechBranch() }).save(folder)
    expect(fs.readdirSync(folder)).toContain('speech')
    await new EmoVerse(parts).save(folder)
    expect(fs.readdirSync(folder)).not.toContain('speech')
    expect((await EmoVerse.fromPretrained(folder)).speech).toBeNull()
  })

  test('Usdm: Voicebox and vocoder', async () => {
    const folder = newFolder()
    const tokenizer = await tinyTokenizer(newFolder())
    const parts = { llm: tinyLlm(tokenizer.vocabSize), tokenizer, units: await tinyUnits() }
    await new Usdm({ ...parts, ...tinySpeech() }).save(folder)
    await new Usdm(parts).save(folder)
    expect(fs.readdirSync(folder).sort()).toEqual(['config.json', 'encoder', 'kmeans.npy', 'llm'])
    expect((await Usdm.fromPretrained(folder)).speaks).toBe(false)
  })

  test('EmotionClassifier: an encoder, but not one that a frozen encoder refers to', async () => {
    const folder = newFolder()
    const text = await textEncoder()
    const labels = ['a', 'b']
    const sizes = { text: text.size, audio: 512 }
    const both = new EmotionClassifier({ sizes, labels }, { encoders: { text: text as never } })
    await both.save(folder, [new EmotionFbankEncoder() as never])
    const loaded = await EmotionTextEncoder.fromPretrained(join(folder, 'text'))
    const head = new EmotionClassifier({ sizes: { text: text.size }, labels })
    await head.save(folder, [loaded as never])
    expect(fs.readdirSync(folder).sort()).toEqual(['config.json', 'model.safetensors', 'text'])
    expect(numbersOf((await EmotionTextEncoder.fromPretrained(join(folder, 'text'))).network)).toEqual(
      numbersOf(text.network),
    )
    await head.save(folder)
    expect(fs.readdirSync(folder).sort()).toEqual(['config.json', 'model.safetensors'])
  })

  test('Salmonn: frozen parts of another model, but not those that the model was loaded from', async () => {
    const folder = newFolder()
    const model = await tinySalmonn()
    await model.save(folder, { whole: true })
    const before = filesOf(folder)
    const loaded = await Salmonn.fromPretrained(folder, { dtype: 'float32' })
    await loaded.save(folder)
    expect(filesOf(folder)).toEqual(before)
    await model.save(folder)
    expect(fs.readdirSync(folder).sort()).toEqual(['adapter.safetensors', 'config.json', 'tokenizer'])
  })

  test('Tokenizer: the file that loading would prefer', async () => {
    const folder = newFolder()
    await (await byteTokenizer()).saveTo(folder)
    fs.writeFileSync(join(folder, 'chat_template.jinja'), 'old')
    const model = await fromModel('bpe-bytes')
    model.saveTo(folder)
    expect((await Tokenizer.fromPretrained(folder)).encode('a b').inputIds).toEqual(model.encode('a b').inputIds)
    expect(filesOf(folder)).not.toContain('chat_template.jinja')
  })
})

describe('writeFolderAtomically', () => {
  const write = (folder: string, name: string, text = name) => {
    fs.mkdirSync(dirname(join(folder, name)), { recursive: true })
    fs.writeFileSync(join(folder, name), text)
  }
  const save = (path: string, fill: (folder: string) => void | Promise<void>) =>
    writeFolderAtomically(path, CheckpointError, async (folder) => fill(folder))

  test('keeps links to folders and files, and the mode of a file that it replaces', async () => {
    const [folder, elsewhere] = [newFolder(), newFolder()]
    write(elsewhere, 'part/a', 'old')
    write(elsewhere, 'target', 'old')
    fs.chmodSync(join(elsewhere, 'target'), 0o600)
    fs.symlinkSync(basename(elsewhere), folder)
    fs.symlinkSync('target', join(elsewhere, 'link'))
    await save(folder, (temporary) => {
      write(temporary, 'part/a')
      write(temporary, 'link')
    })
    expect(fs.readlinkSync(folder)).toBe(basename(elsewhere))
    expect(fs.readlinkSync(join(elsewhere, 'link'))).toBe('target')
    expect(contents(elsewhere)).toEqual({ link: 'link', 'part/a': 'part/a', target: 'link' })
    expect(fs.statSync(join(elsewhere, 'target')).mode & 0o777).toBe(0o600)
    fs.symlinkSync('missing', join(root, 'dangling'))
    await save(join(root, 'dangling'), (temporary) => write(temporary, 'a'))
    expect(contents(join(root, 'missing'))).toEqual({ a: 'a' })
  })

  const deviceOf = (path: string) => (fs.existsSync(path) ? fs.statSync(path).dev : undefined)
  const shared = ['/dev/shm', '/tmp', process.cwd()].find(
    (path) => ![undefined, deviceOf(tmpdir())].includes(deviceOf(path)),
  )
  test.runIf(shared !== undefined)('follows a link to another file system', async () => {
    const folder = newFolder()
    const other = fs.mkdtempSync(join(shared as string, 'voxtorch-'))
    try {
      write(folder, 'a', 'old')
      write(other, 'b', 'old')
      fs.symlinkSync(other, join(folder, 'part'))
      await save(folder, (temporary) => {
        write(temporary, 'a')
        write(temporary, 'part/b', 'new')
      })
      expect(contents(other)).toEqual({ b: 'new' })
      expect(fs.readlinkSync(join(folder, 'part'))).toBe(other)
    } finally {
      fs.rmSync(other, { recursive: true })
    }
  })

  test('an inner save writes into the outer folder, and fails with it', async () => {
    const folder = newFolder()
    write(folder, 'part/stale')
    const outer = (last: () => void) =>
      save(folder, async (temporary) => {
        const inner = join(temporary, 'part')
        await writeFolderAtomically(
          inner,
          DataError,
          async (own) => write(own, 'a'),
          () => ['stale'],
        )
        expect(contents(temporary)).toEqual({ 'part/a': 'a' })
        last()
      })
    const refuse = () => {
      throw new RangeError('no')
    }
    await expect(outer(refuse)).rejects.toThrow(RangeError)
    expect(contents(folder)).toEqual({ 'part/stale': 'part/stale' })
    await outer(() => {})
    expect(contents(folder)).toEqual({ 'part/a': 'a' })
  })

  test('saves of the same folder at the same time do not mix', async () => {
    const folder = newFolder()
    const both = (text: string) =>
      save(folder, async (temporary) => {
        write(temporary, 'a', text)
        await new Promise((resolve) => setImmediate(resolve))
        write(temporary, 'b', text)
      })
    await Promise.all([both('1'), both('2'), both('3')])
    const { a, b, ...others } = contents(folder)
    expect(a).toBe(b)
    expect(others).toEqual({})
  })

  test('names the folder if it cannot be written, and in errors about a file in it', async () => {
    const file = newFolder()
    fs.writeFileSync(file, '')
    await expect(save(file, () => {})).rejects.toMatchObject({ file, message: expect.stringContaining(file) })
    const folder = newFolder()
    write(folder, 'a/b')
    const fill = (temporary: string) => write(temporary, 'a')
    const error = await failed((path) => save(path, fill), folder, 0)
    expect(error).toBeInstanceOf(CheckpointError)
    expect(error).toMatchObject({ file: folder, message: expect.stringContaining(`${folder} cannot be written`) })
    expect(contents(folder)).toEqual({ 'a/b': 'a/b' })
    const inside = save(folder, (temporary) => {
      throw new DataError(`${temporary}/x: bad`, { file: `${temporary}/x` })
    })
    await expect(inside).rejects.toMatchObject({ file: `${folder}/x`, message: `${folder}/x: bad` })
  })

  test('a network that is mapped from the folder is saved over it', async () => {
    const folder = newFolder()
    await newDecoder().save(folder)
    const mapped = await DecoderLM.fromPretrained(folder, { mmap: true })
    const before = numbersOf(mapped)
    await mapped.save(folder, { maxShardBytes: 20_000 })
    expect(numbersOf(mapped)).toEqual(before)
    expect(numbersOf(await DecoderLM.fromPretrained(folder))).toEqual(before)
  })
})
