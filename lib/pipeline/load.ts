import { stat } from 'node:fs/promises'
import { argumentError, defined, requireOptions, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { CATALOG } from '../hub/catalog.js'
import { type ResolveModelOptions, resolveModel } from '../hub/resolve.js'
import { AudioLM } from '../models/audio-lm/audio-lm.js'
import { AUDIO_MODEL_TYPES } from '../models/audio-lm/families.js'
import { Beats } from '../models/beats/beats.js'
import { DecoderLM } from '../models/decoder/decoder-lm.js'
import { MODEL_TYPES } from '../models/decoder/families.js'
import { ggufPath } from '../models/decoder/gguf.js'
import { Emotion2Vec } from '../models/emotion2vec/emotion2vec.js'
import { describedEmotion2Vec } from '../models/emotion2vec/funasr.js'
import { Bert } from '../models/encoders/bert.js'
import { Data2VecAudio } from '../models/encoders/data2vec-audio.js'
import { requireVocabulary } from '../models/encoders/embed-sentences.js'
import { Hubert } from '../models/encoders/hubert.js'
import { Roberta } from '../models/encoders/roberta.js'
import { RobertaForSequenceClassification } from '../models/encoders/roberta-classification.js'
import {
  Data2VecAudioForSequenceClassification,
  HubertForSequenceClassification,
  Wav2Vec2BertForSequenceClassification,
  Wav2Vec2ConformerForSequenceClassification,
  Wav2Vec2ForSequenceClassification,
  WavLMForSequenceClassification,
} from '../models/encoders/speech-classification.js'
import {
  Data2VecAudioForCTC,
  HubertForCTC,
  type SpeechForCTC,
  Wav2Vec2BertForCTC,
  Wav2Vec2ConformerForCTC,
  Wav2Vec2ForCTC,
  WavLMForCTC,
} from '../models/encoders/speech-ctc.js'
import { preprocessorKeysOf } from '../models/encoders/speech-inputs.js'
import { Wav2Vec2 } from '../models/encoders/wav2vec2.js'
import { Wav2Vec2Bert } from '../models/encoders/wav2vec2-bert.js'
import { Wav2Vec2Conformer } from '../models/encoders/wav2vec2-conformer.js'
import { WavLM } from '../models/encoders/wavlm.js'
import { readFeatureExtractor } from '../models/feature-extractor.js'
import { Moonshine } from '../models/moonshine/moonshine.js'
import type { NetworkConfig } from '../models/network.js'
import { ParakeetForCTC } from '../models/parakeet/ctc.js'
import { describedNemo } from '../models/parakeet/nemo.js'
import { ParakeetForRNNT, ParakeetForTDT } from '../models/parakeet/transducer.js'
import { LOAD_OPTIONS, type LoadNetworkOptions, readConfig } from '../models/pretrained.js'
import { isCTranslate2 } from '../models/whisper/ctranslate2.js'
import { Whisper, WhisperEncoder } from '../models/whisper/whisper.js'
import { SpectraClassifier } from '../systems/spectra/answer/classifier.js'
import { requireDevice, requireNetworkDType } from '../tensor/dtype.js'
import { Tokenizer } from '../text/tokenizer.js'

/** Options to load a pipeline's network, with those of the Hugging Face hub for a repository. */
export interface PipelineOptions extends Omit<LoadNetworkOptions, 'allowMissing'> {
  /** Tokenizer of networks for text. Default: that of the model's folder. */
  tokenizer?: Tokenizer
  /** For wav2vec 2.0 and its relatives that read waveforms: whether to normalize clips to mean 0 and variance 1. Default: by preprocessor_config.json, otherwise true. */
  normalizeAudio?: boolean
}

export interface Loaded<M> {
  model: M
  /** Null if the network needs none, or has its own. */
  tokenizer: Tokenizer | null
  normalizesAudio: boolean
  /** Whether the pipeline loaded the network, and so disposes it. */
  owned: boolean
}

interface NetworkClass<M> {
  readonly name: string
  // biome-ignore lint/suspicious/noExplicitAny: constructors have different arguments.
  new (...args: any[]): M
  fromPretrained(from: string, options?: LoadNetworkOptions): Promise<M>
}

/** Class by `model_type` of config.json, with the suffix of the architecture's name if the head matters. */
type Takes = Readonly<Record<string, { Network: NetworkClass<unknown>; head?: string }>>

const CLASSIFIERS = {
  wav2vec2: { Network: Wav2Vec2ForSequenceClassification, head: 'ForSequenceClassification' },
  wavlm: { Network: WavLMForSequenceClassification, head: 'ForSequenceClassification' },
  hubert: { Network: HubertForSequenceClassification, head: 'ForSequenceClassification' },
  'data2vec-audio': { Network: Data2VecAudioForSequenceClassification, head: 'ForSequenceClassification' },
  'wav2vec2-conformer': { Network: Wav2Vec2ConformerForSequenceClassification, head: 'ForSequenceClassification' },
  'wav2vec2-bert': { Network: Wav2Vec2BertForSequenceClassification, head: 'ForSequenceClassification' },
}
/** Encoders of speech without a head. */
const ENCODERS = {
  wav2vec2: { Network: Wav2Vec2 },
  wavlm: { Network: WavLM },
  hubert: { Network: Hubert },
  'data2vec-audio': { Network: Data2VecAudio },
  'wav2vec2-conformer': { Network: Wav2Vec2Conformer },
  'wav2vec2-bert': { Network: Wav2Vec2Bert },
}
const TAKES = {
  'automatic-speech-recognition': {
    whisper: { Network: Whisper },
    wav2vec2: { Network: Wav2Vec2ForCTC, head: 'ForCTC' },
    wavlm: { Network: WavLMForCTC, head: 'ForCTC' },
    parakeet_ctc: { Network: ParakeetForCTC },
    parakeet_rnnt: { Network: ParakeetForRNNT },
    parakeet_tdt: { Network: ParakeetForTDT },
    moonshine: { Network: Moonshine },
    hubert: { Network: HubertForCTC, head: 'ForCTC' },
    'data2vec-audio': { Network: Data2VecAudioForCTC, head: 'ForCTC' },
    'wav2vec2-conformer': { Network: Wav2Vec2ConformerForCTC, head: 'ForCTC' },
    'wav2vec2-bert': { Network: Wav2Vec2BertForCTC, head: 'ForCTC' },
  },
  'audio-classification': { ...CLASSIFIERS, emotion2vec: { Network: Emotion2Vec }, beats: { Network: Beats } },
  'text-generation': {
    ...Object.fromEntries(MODEL_TYPES.map((type) => [type, { Network: DecoderLM, head: 'ForCausalLM' }])),
    // Its language model.
    mistral3: { Network: DecoderLM },
  },
  'feature-extraction': {
    bert: { Network: Bert },
    roberta: { Network: Roberta },
    'xlm-roberta': { Network: Roberta },
    camembert: { Network: Roberta },
    ...ENCODERS,
    emotion2vec: { Network: Emotion2Vec },
    whisper: { Network: WhisperEncoder },
    beats: { Network: Beats },
  },
  'emotion-recognition': {
    ...CLASSIFIERS,
    emotion2vec: { Network: Emotion2Vec },
    spectra: { Network: SpectraClassifier },
    roberta: { Network: RobertaForSequenceClassification, head: 'ForSequenceClassification' },
  },
  'audio-text-to-text': Object.fromEntries(AUDIO_MODEL_TYPES.map((type) => [type, { Network: AudioLM }])),
} satisfies Record<keyof TaskNetworks, Takes>

/** Networks of each task. */
export interface TaskNetworks {
  'automatic-speech-recognition': Whisper | SpeechForCTC | ParakeetForCTC | ParakeetForRNNT | ParakeetForTDT | Moonshine
  'audio-classification': SpeechClassifier | Emotion2Vec | Beats
  'text-generation': DecoderLM
  'feature-extraction': Bert | Roberta | SpeechNetwork | Emotion2Vec | WhisperEncoder | Beats
  'emotion-recognition': SpectraClassifier | SpeechClassifier | Emotion2Vec | RobertaForSequenceClassification
  'audio-text-to-text': AudioLM
}
/** Networks of speech with a head for classes. */
export type SpeechClassifier = InstanceType<(typeof CLASSIFIERS)[keyof typeof CLASSIFIERS]['Network']>
/** Networks of speech without a head. */
export type SpeechNetwork = InstanceType<(typeof ENCODERS)[keyof typeof ENCODERS]['Network']>
export type PipelineTask = keyof TaskNetworks
export type NetworkOf<T extends PipelineTask> = TaskNetworks[T]
export const TASKS = Object.keys(TAKES) as PipelineTask[]

const OPTIONS = [...LOAD_OPTIONS.filter((name) => name !== 'allowMissing'), 'tokenizer', 'normalizeAudio']
/** Networks whose waveform settings the pipeline reads. Those with a CTC head do it themselves. */
const READS_WAVEFORMS: readonly unknown[] = [...Object.values(ENCODERS), ...Object.values(CLASSIFIERS)].map(
  ({ Network }) => Network,
)
const READS_TEXT: readonly unknown[] = [DecoderLM, Bert, Roberta, RobertaForSequenceClassification]

/** Load the network of a folder or repository, or take a loaded one, and set it to evaluation mode. */
export async function loaded<T extends PipelineTask>(
  where: string,
  task: T,
  from: string | NetworkOf<T>,
  options: PipelineOptions,
): Promise<Loaded<NetworkOf<T>>> {
  requireOptions(where, options, OPTIONS)
  const { tokenizer: given, normalizeAudio, ...load } = options
  if (given !== undefined && !(given instanceof Tokenizer))
    throw argumentError(where, 'tokenizer', 'a Tokenizer', given)
  if (normalizeAudio !== undefined && typeof normalizeAudio !== 'boolean') {
    throw argumentError(where, 'normalizeAudio', 'true or false', normalizeAudio)
  }
  if (from === undefined) {
    const networks = Object.values<Takes[string]>(TAKES[task]).map(({ Network }) => Network.name)
    const examples = Object.keys(CATALOG).filter((name) => networks.includes(CATALOG[name]?.network ?? ''))
    const example = examples[0] === undefined ? '' : ` For example: '${examples[0]}'.`
    throw new ConfigError(
      `${where}: expected a model as the second argument, got none. Pass a folder, a name of published weights or a repository.${example}`,
      { argument: 'model' },
    )
  }
  const takes: Takes = TAKES[task]
  if (typeof from !== 'string') {
    const Network = Object.values(takes).find((one) => (from as unknown) instanceof one.Network)?.Network
    if (Network === undefined)
      throw wrongModel(where, task, (from as object | null)?.constructor?.name ?? shown(from), undefined)
    const [option] = Object.keys(defined(load))
    if (option)
      throw new ConfigError(
        `${where}.${option}: expected no loading options for a loaded network, got ${option}. Leave it out.`,
        { option },
      )
    const tokenizer = needed(where, Network, given)
    if (tokenizer !== null) requireVocabulary(where, tokenizer, from as never)
    if (Network !== SpectraClassifier) (from as unknown as { eval(): unknown }).eval()
    else (from as SpectraClassifier).model.eval()
    return { model: from, tokenizer, normalizesAudio: normalizeAudio ?? true, owned: false }
  }
  const isFile = (await stat(from).catch(() => undefined))?.isFile() ?? false
  const { device, dtype, seed, mmap, quantize, ...hub } = load
  requireDevice(`${where}: device`, device)
  requireNetworkDType(`${where}: dtype`, dtype)
  const directory = isFile ? from : await resolveModel(from, hub as ResolveModelOptions)
  const Network = isFile && 'beats' in takes ? Beats : await networkOf(where, task, directory)
  const reads = READS_TEXT.includes(Network)
  const tokenizer = reads ? (given ?? (await Tokenizer.fromPretrained(directory))) : needed(where, Network, given)
  const model = await Network.fromPretrained(directory, defined({ device, dtype, seed, mmap, quantize }))
  let normalizesAudio = normalizeAudio ?? true
  try {
    if (normalizeAudio === undefined && READS_WAVEFORMS.includes(Network)) {
      const keys = preprocessorKeysOf((model as SpeechNetwork).config)
      normalizesAudio = (await readFeatureExtractor(directory, keys)).doNormalize !== false
    }
    if (given !== undefined) requireVocabulary(where, given, model as never)
  } catch (error) {
    ;(model as { dispose(): void }).dispose()
    throw error
  }
  if (!(model instanceof SpectraClassifier)) (model as { eval(): unknown }).eval()
  return { model: model as NetworkOf<T>, tokenizer, normalizesAudio, owned: true }
}

function needed(where: string, Network: NetworkClass<unknown>, tokenizer: Tokenizer | undefined): Tokenizer | null {
  const reads = READS_TEXT.includes(Network)
  if (reads && tokenizer === undefined) {
    throw new ConfigError(
      `${where}.tokenizer: expected the tokenizer of the loaded ${Network.name}, got none. Pass { tokenizer }.`,
    )
  }
  if (reads || tokenizer === undefined) return tokenizer ?? null
  throw new ConfigError(`${where}.tokenizer: expected none for ${Network.name}, got one. Leave it out.`, {
    argument: 'tokenizer',
  })
}

/** Return the class that a folder's config.json names, if the task supports it. */
async function networkOf(where: string, task: PipelineTask, directory: string): Promise<NetworkClass<unknown>> {
  const { modelType, architectures } = await described(directory)
  const architecture = Array.isArray(architectures) ? architectures[0] : undefined
  const kind = fitting(TAKES[task], modelType, architecture)
  if (kind === undefined) throw wrongModel(where, task, String(architecture ?? modelType), modelType)
  return kind
}

/** Read config.json. The files of other programs have a fixed model type. */
async function described(directory: string): Promise<NetworkConfig> {
  if (isCTranslate2(directory)) return { modelType: 'whisper' }
  const nemo = await describedNemo(directory)
  if (nemo !== undefined) return nemo
  const funasr = await describedEmotion2Vec(directory)
  if (funasr !== undefined) return funasr
  return ggufPath(directory) === null ? readConfig(directory) : { modelType: 'llama' }
}

function fitting(takes: Takes, modelType: unknown, architecture: unknown): NetworkClass<unknown> | undefined {
  const found = typeof modelType === 'string' && Object.hasOwn(takes, modelType) ? takes[modelType] : undefined
  const fits = found?.head === undefined || typeof architecture !== 'string' || isNamed(found, architecture)
  return fits ? found?.Network : undefined
}

/** Return whether an architecture's name matches. voxtorch's own files of language models have the name of the class. */
const isNamed = ({ Network, head = '' }: Takes[string], architecture: string): boolean =>
  architecture.endsWith(head) || architecture === Network.name

function wrongModel(where: string, task: PipelineTask, name: string | undefined, modelType: unknown): ConfigError {
  const classes = (one: PipelineTask) => [
    ...new Set(Object.values<Takes[string]>(TAKES[one]).map((it) => it.Network.name)),
  ]
  const others = TASKS.filter(
    (one) => one !== task && (classes(one).includes(name ?? '') || fitting(TAKES[one], modelType, name)),
  )
  const hint = others.length > 0 ? ` It is for ${others.map((one) => `'${one}'`).join(' and ')}.` : ''
  return new ConfigError(`${where}: expected ${classes(task).join(', ')}, got ${name ?? 'another value'}.${hint}`, {
    task,
    architecture: name,
  })
}
