import { mkdtempSync, rmSync } from 'node:fs'
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  loadSafetensors,
  loadTorch,
  manualSeed,
  memoryStats,
  noGrad,
  Roberta,
  Spectra,
  saveSafetensors,
  scope,
  slice,
  type Tensor,
  WavLM,
  zeros,
} from '../../../../lib/index.js'
import type { LoadSpectraOptions, SpectraInputs } from '../../../../lib/systems/spectra/index.js'
import { SpectraForPreTraining, SpectraForSequenceClassification } from '../../../../lib/systems/spectra/index.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../../../helpers.js'
import { camelKeys } from '../../../models/networks.js'

const answers = await fixture<{ name: string }>('spectra/pretrained')
const folderOf = (name: string, file = '') => fixturePath(`spectra/${name}/${file}`)
const temporary = mkdtempSync(join(tmpdir(), 'voxtorch-spectra-'))
afterAll(() => rmSync(temporary, { recursive: true }))

const inputsOf = (name: string): SpectraInputs => ({
  ...(camelKeys(tensorsOf(answers, name, 'in')) as unknown as SpectraInputs),
  audiosPerText: 2,
})

/** A fixture's folder with other weights or configurations. */
async function variant(
  name: string,
  from: string,
  change: (state: Record<string, Tensor>) => Record<string, Tensor>,
  configs: (text: Record<string, unknown>, audio: Record<string, unknown>) => void = () => undefined,
): Promise<string> {
  const folder = join(temporary, name)
  await mkdir(folder, { recursive: true })
  const [text, audio] = await Promise.all(
    ['text_config.json', 'audio_config.json'].map(async (file) =>
      JSON.parse(await readFile(folderOf(from, file), 'utf8')),
    ),
  )
  configs(text, audio)
  await writeFile(join(folder, 'text_config.json'), JSON.stringify(text))
  await writeFile(join(folder, 'audio_config.json'), JSON.stringify(audio))
  await scope(async () => {
    const state = await loadTorch<Record<string, Tensor>>(folderOf(from, 'pytorch_model.bin'))
    const changed = Object.entries(change(state)).map(([key, value]): [string, Tensor] => [key, value.clone()])
    await saveSafetensors(join(folder, 'model.safetensors'), Object.fromEntries(changed))
  })
  return folder
}

const mapped = (state: Record<string, Tensor>, name: (name: string) => string) =>
  Object.fromEntries(Object.entries(state).map(([key, value]) => [name(key), value]))
const without = (state: Record<string, Tensor>, pattern: RegExp) =>
  Object.fromEntries(Object.entries(state).filter(([key]) => !pattern.test(key)))

async function expectAnswers(network: SpectraForPreTraining, name: string): Promise<void> {
  const expected = tensorsOf(answers, name, 'out')
  const output = await network.predict(inputsOf(name))
  expectClose(output.lastHiddenState.at(0), expected.states as Tensor, 1e-5, 'states')
  expectClose(output.crsLogits, expected.pairing as Tensor, 1e-5, 'pairing')
  expectClose(output.starts.at(0), (expected.starts as Tensor).squeeze(-1), 1e-5, 'starts')
  expectClose(output.ends.at(0), (expected.ends as Tensor).squeeze(-1), 1e-5, 'ends')
}

describe('files of the published layout', () => {
  it.each([
    ['published', {}, { prefix: 'model.', convLayers: 8, typeRows: 2, fusedIndexed: true, fusedLayers: 1 }],
    ['published', { mmap: true }, { prefix: 'model.', convLayers: 8, fresh: [] }],
    ['older', {}, { prefix: '', convLayers: 7, typeRows: 1, fusedIndexed: false, fusedLayers: 1, fresh: [] }],
  ])('%s, %o', async (name, options, report) => {
    const network = await SpectraForPreTraining.fromPretrained(folderOf(name), options)
    expect(network.training).toBe(false)
    await expectAnswers(network, name)
    expect(network.loadReport).toMatchObject(report)
    expect(network.loadReport?.heads).toEqual(
      expect.arrayContaining([
        'mlm_head',
        'mam_head',
        'selection_head',
        'start_prediction_head',
        'end_prediction_head',
      ]),
    )
    if (name === 'published') expect(network.loadReport?.tensors).toBe(Object.keys(network.stateDict()).length)
    if (name === 'older') {
      expect(network.config.maxTextLength).toBe(512)
      expect(network.loadReport?.ignored.sort()).toEqual([
        'audio_encoder.masked_spec_embed',
        'text_encoder.embeddings.position_ids',
      ])
    } else {
      expect(network.config.maxAudioLength).toBe(4000)
    }
  })

  it.each<[string, (name: string) => string, string]>([
    ['module.', (name) => `module.${name.replace(/^model\./, '')}`, 'module.'],
    ['module.model.', (name) => `module.${name}`, 'module.model.'],
    ['no prefix', (name) => name.replace(/^model\./, ''), ''],
    ['layers without a number', (name) => name.replace('fused_encoder.0.', 'fused_encoder.'), 'model.'],
  ])('with %s, in safetensors', async (title, rename, prefix) => {
    const folder = await variant(`prefix-${title}`, 'published', (state) => mapped(state, rename))
    const network = await SpectraForPreTraining.fromPretrained(folder)
    await expectAnswers(network, 'published')
    expect(network.loadReport).toMatchObject({ prefix, fusedIndexed: !title.startsWith('layers') })
  })

  it.each([Spectra, SpectraForPreTraining, SpectraForSequenceClassification])(
    '%o saves what it reads again',
    async (Network) => {
      const folder = join(temporary, `saved-${Network.name}`)
      const options: LoadSpectraOptions = { config: { compat: 'published', numLabels: 5, legacyFusionMask: true } }
      const network = await Network.fromPretrained(folderOf('published'), options)
      await network.save(folder)
      const again = await Network.fromPretrained(folder)
      expect(again.config).toMatchObject({
        compat: 'published',
        maxAudioLength: 4000,
        legacyFusionMask: true,
        numFusedLayers: 1,
      })
      expect(again.loadReport?.fresh).toEqual([])
      const [own, other] = [network.stateDict(), again.stateDict()]
      expect(Object.keys(other)).toEqual(Object.keys(own))
      for (const [name, value] of Object.entries(own)) expect((other[name] as Tensor).equal(value), name).toBe(true)
      if (again instanceof SpectraForSequenceClassification) expect(own['head.2.weight']?.shape).toEqual([5, 8])
      const { tensors } = await loadSafetensors(join(folder, 'model.safetensors'))
      expect(Object.keys(tensors).includes('mlm_head.bias')).toBe(Network === SpectraForPreTraining)
    },
  )

  it('names the heads that a file lacks, unless they are meant to be new', async () => {
    const warnings: string[] = []
    const hear = (warning: Error) => void (warning.name === 'SpectraWarning' && warnings.push(warning.message))
    process.on('warning', hear)
    const heard = () => new Promise((resolve) => setImmediate(resolve)).then(() => warnings.splice(0))
    try {
      const folder = join(temporary, 'classifier')
      await (await SpectraForSequenceClassification.fromPretrained(folderOf('published'))).save(folder)
      const [own] = await heard()
      expect(own).toMatch(/published.*: 4 tensors of the heads of SpectraForSequenceClassification are missing/)
      expect(own).toMatch(/head\.0\.weight, head\.0\.bias, head\.2\.weight, head\.2\.bias$/)
      const network = await SpectraForPreTraining.fromPretrained(folder)
      const [said, ...more] = await heard()
      expect(more).toEqual([])
      const names = said!.split(': ').at(-1)!.split(', ')
      const heads = Object.keys(network.stateDict()).filter((name) => /^[a-z_]+_head\./.test(name))
      expect(names.sort()).toEqual(heads.sort())
      expect(said).toContain(`: ${heads.length} tensors of the heads of SpectraForPreTraining are missing`)
      expect(network.untrainedHeads().length).toBeGreaterThan(0)
      expect(network.untrainedHeads().every((name) => /^(selection|start_prediction|end_prediction)_head/.test(name))).toBe(true) // biome-ignore format: one line
      noGrad(() => (network.get('start_prediction_head.0').stateDict().weight as Tensor).add_(1))
      expect(network.untrainedHeads()).not.toContain('start_prediction_head.0.weight')
      await SpectraForPreTraining.fromPretrained(folder, { freshHeads: true })
      await Spectra.fromPretrained(folder)
      await SpectraForSequenceClassification.fromPretrained(folder)
      const whole = await SpectraForPreTraining.fromPretrained(folderOf('published'))
      expect(whole.untrainedHeads()).toEqual([])
      expect(await heard()).toEqual([])
    } finally {
      process.off('warning', hear)
    }
  })

  it('leaves out the heads of other networks, and gives a new head fresh values', async () => {
    manualSeed(2)
    const folder = await variant('tracking', 'published', (state) => ({
      ...state,
      'token_hotel-area.weight': zeros([2, 8]),
    }))
    expect((await Spectra.fromPretrained(folder)).loadReport).toMatchObject({
      ignored: expect.arrayContaining(['token_hotel-area.weight']),
      heads: expect.arrayContaining(['tracking', 'mlm_head']),
    })
    const network = await SpectraForSequenceClassification.fromPretrained(folderOf('published'), {
      config: { numLabels: 6 },
    })
    expect(network.loadReport?.fresh).toEqual(['head.0.weight', 'head.0.bias', 'head.2.weight', 'head.2.bias'])
    expect(network.loadReport?.ignored).toEqual(
      expect.arrayContaining(['mlm_head.bias', 'end_prediction_head.0.weight']),
    )
    const first = network.get('head.0').stateDict().weight as Tensor
    const bound = 1 / Math.sqrt(8)
    expect(first.abs().max().item()).toBeLessThanOrEqual(bound)
    expect(first.abs().max().item()).toBeGreaterThan(0.8 * bound)
  })

  it('gives an eighth convolution and the vectors between clips fresh values', async () => {
    const missing = /conv_layers\.7\.|audio_(cls|sep)$|selection_head/
    const folder = await variant('tolerated', 'published', (state) => without(state, missing))
    const network = await SpectraForPreTraining.fromPretrained(folder)
    expect(network.loadReport?.convLayers).toBe(7)
    expect(network.loadReport?.fresh.sort()).toEqual([
      'audio_encoder.audio_cls',
      'audio_encoder.audio_sep',
      'audio_encoder.feature_extractor.conv_layers.7.conv.weight',
      'selection_head.bias',
      'selection_head.weight',
    ])
    for (const name of network.loadReport?.fresh ?? []) {
      expect((network.stateDict()[name] as Tensor).isfinite().all().item(), name).toBe(true)
    }
  })

  it('keeps a head’s bias one tensor, whichever of its names a file has', async () => {
    for (const missing of [/^mlm_head\.bias$/, /^mlm_head\.decoder\.bias$/]) {
      const folder = await variant('bias', 'published', (state) => without(state, missing))
      const network = await SpectraForPreTraining.fromPretrained(folder)
      const state = network.stateDict()
      expect(state['mlm_head.bias']).toBe(state['mlm_head.decoder.bias'])
      await expectAnswers(network, 'published')
    }
  })
})

describe('files that do not fit', () => {
  const refused = async (folder: Promise<string>) => {
    const before = await settledTensors()
    const load = SpectraForPreTraining.fromPretrained(await folder)
    const error = await load.then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    expect(error).toBeInstanceOf(CheckpointError)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    return error as CheckpointError & { missing?: string[]; unexpected?: string[]; mismatched?: { name: string }[] }
  }

  it('are refused with all names', async () => {
    const error = await refused(
      variant('misfit', 'published', (state) => ({
        ...without(state, /query\.weight$/),
        'model.extra.weight': zeros([2]),
        'model.audio_encoder.audio_sep': zeros([9]),
      })),
    )
    expect(error.missing).toEqual([
      'text_encoder.encoder.layer.0.attention.self.query.weight',
      'fused_encoder.0.attention.self.query.weight',
    ])
    expect(error.unexpected).toEqual(['extra.weight'])
    expect(error.mismatched).toMatchObject([{ name: 'audio_encoder.audio_sep', expected: [8], actual: [9] }])
    expect(error.message).toMatch(/model\.safetensors does not hold a SpectraForPreTraining/)
  })

  it('are refused where the file has a convolution more than the configuration', async () => {
    const error = await refused(
      variant(
        'seven',
        'published',
        (state) => state,
        (_, audio) => {
          for (const key of ['conv_dim', 'conv_kernel', 'conv_stride']) (audio[key] as number[]).pop()
        },
      ),
    )
    expect(error.unexpected).toEqual(['audio_encoder.feature_extractor.conv_layers.7.conv.weight'])
  })

  it('are refused where the file has a fusion layer less', async () => {
    const error = await refused(
      variant(
        'layers',
        'published',
        (state) => state,
        (text) => {
          text.num_fused_layers = 2
        },
      ),
    )
    expect(error.missing).toHaveLength(16)
  })

  it.each<[string, (state: Record<string, Tensor>) => Record<string, Tensor>, RegExp]>([
    [
      'twice',
      (state) => ({ ...state, 'audio_encoder.audio_cls': zeros([8]) }),
      /expected audio_encoder\.audio_cls once/,
    ],
    ['two-prefixes', (state) => mapped(state, (name) => name.replace('model.text', 'text')), /one prefix/],
    [
      'two-biases',
      (state) => ({ ...state, 'mlm_head.bias': zeros([30]) }),
      /tied tensors mlm_head\.bias and mlm_head\.decoder\.bias/,
    ],
  ])('are refused where names do not agree: %s', async (name, change, message) => {
    expect((await refused(variant(name, 'published', change))).message).toMatch(message)
  })

  it('are refused without configurations or weights', async () => {
    const folder = join(temporary, 'empty')
    await mkdir(folder, { recursive: true })
    await expect(Spectra.fromPretrained(folder)).rejects.toThrow(/text_config\.json/)
    for (const file of ['text_config.json', 'audio_config.json'])
      await copyFile(folderOf('older', file), join(folder, file))
    await expect(Spectra.fromPretrained(folder)).rejects.toThrow(CheckpointError)
    await expect(Spectra.fromPretrained({ text: folder } as never)).rejects.toThrow(ConfigError)
  })
})

describe('two encoders', () => {
  const text = join(temporary, 'roberta')
  const audio = join(temporary, 'wavlm')
  const sizes = { hiddenSize: 8, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 12 }

  it('become a fresh start, whose type table has a copy of its row', async () => {
    manualSeed(1)
    const roberta = Roberta.fromConfig({
      ...sizes,
      vocabSize: 30,
      typeVocabSize: 1,
      maxPositionEmbeddings: 20,
      layerNormEps: 1e-5,
    })
    const wavlm = WavLM.fromConfig({
      ...sizes,
      convDim: [4, 4],
      convKernel: [10, 3],
      convStride: [5, 2],
      numConvPosEmbeddings: 8,
      numConvPosEmbeddingGroups: 2,
    })
    await roberta.save(text)
    await wavlm.save(audio)
    const network = await SpectraForPreTraining.fromPretrained({ text, audio }, { config: { numFusedLayers: 2 } })
    const state = network.stateDict()
    for (const [name, value] of Object.entries(roberta.stateDict())) {
      if (name.includes('token_type')) continue
      expect((state[`text_encoder.${name}`] as Tensor).equal(value), name).toBe(true)
    }
    for (const [name, value] of Object.entries(wavlm.stateDict())) {
      if (name === 'masked_spec_embed') expect(state[`audio_encoder.${name}`]).toBeUndefined()
      else expect((state[`audio_encoder.${name}`] as Tensor).equal(value), name).toBe(true)
    }
    const table = state['text_encoder.embeddings.token_type_embeddings.weight'] as Tensor
    const row = roberta.stateDict()['embeddings.token_type_embeddings.weight'] as Tensor
    expect(table.shape).toEqual([2, 8])
    for (const i of [0, 1]) expect(table.at(slice(i, i + 1)).equal(row)).toBe(true)
    const { fresh, convLayers, typeRows } = network.loadReport ?? {}
    expect([convLayers, typeRows]).toEqual([2, 1])
    expect(fresh?.every((name) => !/^text_encoder|^audio_encoder\.(?!audio_)/.test(name))).toBe(true)
    expect(fresh).toContain('fused_encoder.1.output.dense.weight')
    for (const name of fresh ?? []) expect((state[name] as Tensor).isfinite().all().item(), name).toBe(true)

    const fresher = await Spectra.fromPretrained({ text, audio })
    await fresher.save(join(temporary, 'from-encoders'))
    expect((await Spectra.fromPretrained(join(temporary, 'from-encoders'))).loadReport?.fresh).toEqual([])
  })
})
