import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import * as files from '../../lib/files/index.js'
import * as everything from '../../lib/index.js'
import * as root from '../../lib/root.js'
import * as serve from '../../lib/serve/index.js'
import * as languagebind from '../../lib/systems/emotion/index.js'
import * as emoverse from '../../lib/systems/emoverse/index.js'
import * as salmonn from '../../lib/systems/salmonn/index.js'
import * as spectra from '../../lib/systems/spectra/index.js'
import * as usdm from '../../lib/systems/usdm/index.js'

/** What could be imported from the root once. */
const older: Record<string, object> = { files, serve, salmonn, spectra }
const subpaths: Record<string, object> = { ...older, emoverse, languagebind, usdm }
const exported: Record<string, unknown> = root
const names = Object.keys(root)

describe('the root of the package', () => {
  it.each([
    ['networks', 'WavLM Wav2Vec2 Whisper WhisperEncoder Beats Roberta DecoderLM QFormer Wav2Vec2ForCTC WavLMForCTC'],
    ['vocoders', 'BigVGAN UnitVoicebox griffinLim'],
    ['heads', 'WavLMForSequenceClassification RobertaForSequenceClassification DecoderLMForSequenceClassification'],
    ['systems', 'Spectra SpectraForPreTraining SpectraForSequenceClassification SpectraForDst Salmonn'],
    ['tensors', 'tensor zeros ones randn arange scope noGrad inferenceMode autocast memoryStats manualSeed Generator'],
    ['the runtime', 'setNumThreads cuda detectAnomaly gradcheck profile ops autograd'],
    [
      'files',
      'readPickle loadTorch loadSafetensors saveSafetensors readAudio writeWav readJson writeJson readJsonl readCsv',
    ],
    [
      'training',
      'AdamW SGD Trainer DataLoader LoraConfig getPeftModel quantize accuracy f1Score wer rouge confusionMatrix',
    ],
    ['errors', 'VoxtorchError ShapeError DeviceError ConfigError DataError CheckpointError DisposedError'],
  ])('has %s', (_, promised) => {
    expect(names).toEqual(expect.arrayContaining(promised.split(' ')))
  })

  it.each([
    ['AutoModelForCausalLM', 'DecoderLM'],
    ['AutoTokenizer', 'Tokenizer'],
    ['BertModel', 'Bert'],
    ['CLIPModel', 'Clip'],
    ['CLIPTextModel', 'ClipTextModel'],
    ['CLIPVisionModel', 'ClipVisionModel'],
    ['RobertaModel', 'Roberta'],
    ['Wav2Vec2Model', 'Wav2Vec2'],
    ['WavLMModel', 'WavLM'],
    ['WhisperForConditionalGeneration', 'Whisper'],
  ] as const)('has transformers’ name %s for %s', (alias, name) => {
    expect(exported[alias]).toBeDefined()
    expect(exported[alias]).toBe(exported[name])
  })

  it('leaves to subpaths what only one system, serving or a format needs', () => {
    const networks = [
      'Salmonn',
      'Spectra',
      'SpectraForDst',
      'SpectraForPreTraining',
      'SpectraForSequenceClassification',
    ]
    const { files: _, ...systems } = subpaths
    for (const [subpath, module] of Object.entries(systems)) {
      const shared = names.filter((name) => name in module && !networks.includes(name))
      expect(shared, subpath).toEqual([])
    }
    expect(names.filter((name) => name in spectra || name in salmonn || name in serve)).toEqual(networks)
    expect(
      names.filter((name) => /spectra|salmonn|usdm|emoverse|dst|humdial|spokenwoz|trippy|judge/i.test(name)),
    ).toEqual(networks)
    expect(names).not.toContain('saveNpz')
    expect(files).toHaveProperty('saveNpz')
  })

  it('keeps names that moved until 1.0, each of which a subpath has', () => {
    const moved = Object.keys(everything).filter((name) => !names.includes(name))
    expect(moved.length).toBeGreaterThan(100)
    for (const name of moved) {
      const homes = Object.values(subpaths).filter((subpath) => name in subpath)
      expect(homes, name).not.toEqual([])
      for (const home of homes) expect(Reflect.get(everything, name), name).toBe(Reflect.get(home, name))
    }
    for (const [subpath, module] of Object.entries(older)) expect(everything, subpath).toMatchObject(module)
  })

  it('has each subpath in the exports of the package and in tsconfig.json', () => {
    const { exports } = JSON.parse(readFileSync('package.json', 'utf8'))
    const { paths } = JSON.parse(readFileSync('tsconfig.json', 'utf8')).compilerOptions
    const listed = ['.', ...Object.keys(subpaths).map((name) => `./${name}`)]
    expect(Object.keys(exports).sort()).toEqual([...listed, './package.json'].sort())
    expect(Object.keys(paths).sort()).toEqual(listed.map((name) => name.replace('.', 'voxtorch')).sort())
  })
})
