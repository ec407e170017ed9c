import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import * as root from '../../lib/index.js'
import * as serve from '../../lib/serve/index.js'
import * as emotion from '../../lib/systems/emotion/index.js'
import * as emoverse from '../../lib/systems/emoverse/index.js'
import * as salmonn from '../../lib/systems/salmonn/index.js'
import * as spectra from '../../lib/systems/spectra/index.js'
import * as usdm from '../../lib/systems/usdm/index.js'
import * as tuning from '../../lib/tuning/index.js'

const SYSTEMS: Record<string, object> = { emotion, emoverse, salmonn, serve, spectra, tuning, usdm }
const SUBPATHS = ['files', 'languagebind', ...Object.keys(SYSTEMS)]
const exported: Record<string, unknown> = root
const names = Object.keys(root)

describe('the root of the package', () => {
  it.each([
    [
      'networks',
      'WavLM Wav2Vec2 Whisper Beats Roberta Clip SiglipVisionModel LanguageBind InternVL SmolVLM DecoderLM QFormer',
    ],
    ['vocoders', 'BigVGAN UnitVoicebox griffinLim'],
    ['heads', 'Wav2Vec2ForCTC WavLMForSequenceClassification RobertaForSequenceClassification'],
    ['systems', 'Spectra Salmonn'],
    ['tensors', 'tensor zeros ones randn arange scope noGrad inferenceMode autocast memoryStats manualSeed Generator'],
    ['the runtime', 'setNumThreads cuda detectAnomaly gradcheck profile ops autograd'],
    ['files', 'readPickle loadTorch loadSafetensors saveSafetensors readAudio writeWav readJson writeJson readJsonl'],
    ['training', 'AdamW SGD Trainer DataLoader LoraConfig getPeftModel quantize'],
    ['schedules', 'getScheduler getLinearScheduleWithWarmup getCosineScheduleWithWarmup OneCycleLR LRScheduler'],
    ['metrics', 'accuracy f1Score precision recall confusionMatrix wer cer rouge corpusBleu meteor spearman rocAuc'],
    ['errors', 'VoxtorchError ShapeError DeviceError ConfigError DataError CheckpointError DisposedError'],
  ])('has %s', (_, promised) => {
    expect(names).toEqual(expect.arrayContaining(promised.split(' ')))
  })

  it.each([
    ['AutoModelForCausalLM', 'DecoderLM'],
    ['AutoTokenizer', 'Tokenizer'],
    ['BertModel', 'Bert'],
    ['HubertModel', 'Hubert'],
    ['Data2VecAudioModel', 'Data2VecAudio'],
    ['Wav2Vec2ConformerModel', 'Wav2Vec2Conformer'],
    ['Wav2Vec2BertModel', 'Wav2Vec2Bert'],
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

  it('shares with a system or the server only the networks of SPECTRA and SALMONN', () => {
    for (const [subpath, module] of Object.entries(SYSTEMS)) {
      const shared = names.filter((name) => name in module && Reflect.get(module, name) === exported[name])
      expect(
        shared.filter((name) => !['Salmonn', 'Spectra'].includes(name)),
        subpath,
      ).toEqual([])
    }
    expect(
      names.filter((name) => /spectra|salmonn|usdm|emoverse|dst|humdial|spokenwoz|trippy|judge/i.test(name)).sort(),
    ).toEqual(['Salmonn', 'Spectra'])
  })

  it('leaves formats that few need to voxtorch/files, and plumbing to nobody', () => {
    for (const name of ['readCsv', 'saveGguf', 'saveNpz', 'LazyTensor']) expect(names).not.toContain(name)
    expect(names.filter((name) => /OfArguments$/.test(name))).toEqual([])
    // transformers' users type get_cosine_schedule_with_warmup.
    expect(names.filter((name) => /^(?!get).*Schedule(WithWarmup)?$/.test(name))).toEqual([])
  })

  it('has each subpath in the exports of the package and in tsconfig.json', () => {
    const { exports } = JSON.parse(readFileSync('package.json', 'utf8'))
    const { paths } = JSON.parse(readFileSync('tsconfig.json', 'utf8')).compilerOptions
    const listed = ['.', ...SUBPATHS.map((name) => `./${name}`)]
    expect(Object.keys(exports).sort()).toEqual([...listed, './package.json'].sort())
    expect(Object.keys(paths).sort()).toEqual(listed.map((name) => name.replace('.', 'voxtorch')).sort())
  })
})
