import { stat } from 'node:fs/promises'
import { defined, misuse, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type ResolveModelOptions, resolveModel } from '../hub/resolve.js'
import { Beats } from '../models/beats/beats.js'
import { DecoderLM } from '../models/decoder/decoder-lm.js'
import { ggufPath } from '../models/decoder/gguf.js'
import { Bert } from '../models/encoders/bert.js'
import { Roberta } from '../models/encoders/roberta.js'
import { RobertaForSequenceClassification } from '../models/encoders/roberta-classification.js'
import {
  Wav2Vec2ForSequenceClassification,
  WavLMForSequenceClassification,
} from '../models/encoders/speech-classification.js'
import { Wav2Vec2ForCTC, WavLMForCTC } from '../models/encoders/speech-ctc.js'
import { Wav2Vec2 } from '../models/encoders/wav2vec2.js'
import { WavLM } from '../models/encoders/wavlm.js'
import { readFeatureExtractor, WAVEFORM_KEYS } from '../models/feature-extractor.js'
import type { NetworkConfig } from '../models/network.js'
import { LOAD_OPTIONS, type LoadNetworkOptions, readConfig } from '../models/pretrained.js'
import { isCTranslate2 } from '../models/whisper/ctranslate2.js'
import { Whisper, WhisperEncoder } from '../models/whisper/whisper.js'
import { SpectraClassifier } from '../systems/spectra/answer/classifier.js'
import { Tokenizer } from '../text/tokenizer.js'

/** How a pipeline comes to its network; for a repository of the hub, the hub's options too. */
export interface PipelineOptions extends Omit<LoadNetworkOptions, 'allowMissing'> {
  /** Of networks that read or write text. Default: that of the model's folder. */
  tokenizer?: Tokenizer
  /** Of wav2vec 2.0 and WavLM: whether clips get mean 0 and variance 1. Default: as preprocessor_config.json says, else true. */
  normalizeAudio?: boolean
}

export interface Loaded<M> {
  model: M
  /** Null where the network needs none, or brings it. */
  tokenizer: Tokenizer | null
  normalizesAudio: boolean
  /** Whether the pipeline loaded the network, and so frees it. */
  owned: boolean
}

interface NetworkClass<M> {
  readonly name: string
  // biome-ignore lint/suspicious/noExplicitAny: each has constructor arguments of its own.
  new (...args: any[]): M
  fromPretrained(from: string, options?: LoadNetworkOptions): Promise<M>
}

/** By `model_type` of config.json: what loads it, and how the name of its architecture ends where the head matters. */
type Takes = Readonly<Record<string, { Network: NetworkClass<unknown>; head?: string }>>

const CLASSIFIERS = {
  wav2vec2: { Network: Wav2Vec2ForSequenceClassification, head: 'ForSequenceClassification' },
  wavlm: { Network: WavLMForSequenceClassification, head: 'ForSequenceClassification' },
}
const TAKES = {
  'automatic-speech-recognition': {
    whisper: { Network: Whisper },
    wav2vec2: { Network: Wav2Vec2ForCTC, head: 'ForCTC' },
    wavlm: { Network: WavLMForCTC, head: 'ForCTC' },
  },
  'audio-classification': { ...CLASSIFIERS, beats: { Network: Beats } },
  'text-generation': {
    llama: { Network: DecoderLM, head: 'ForCausalLM' },
    mistral: { Network: DecoderLM, head: 'ForCausalLM' },
    qwen2: { Network: DecoderLM, head: 'ForCausalLM' },
  },
  'feature-extraction': {
    bert: { Network: Bert },
    roberta: { Network: Roberta },
    'xlm-roberta': { Network: Roberta },
    camembert: { Network: Roberta },
    wav2vec2: { Network: Wav2Vec2 },
    wavlm: { Network: WavLM },
    whisper: { Network: WhisperEncoder },
    beats: { Network: Beats },
  },
  'emotion-recognition': {
    ...CLASSIFIERS,
    spectra: { Network: SpectraClassifier },
    roberta: { Network: RobertaForSequenceClassification, head: 'ForSequenceClassification' },
  },
} satisfies Record<keyof TaskNetworks, Takes>

/** What networks each task takes. */
export interface TaskNetworks {
  'automatic-speech-recognition': Whisper | Wav2Vec2ForCTC | WavLMForCTC
  'audio-classification': Wav2Vec2ForSequenceClassification | WavLMForSequenceClassification | Beats
  'text-generation': DecoderLM
  'feature-extraction': Bert | Roberta | Wav2Vec2 | WavLM | WhisperEncoder | Beats
  'emotion-recognition':
    | SpectraClassifier
    | Wav2Vec2ForSequenceClassification
    | WavLMForSequenceClassification
    | RobertaForSequenceClassification
}
export type PipelineTask = keyof TaskNetworks
export type NetworkOf<T extends PipelineTask> = TaskNetworks[T]
export const TASKS = Object.keys(TAKES) as PipelineTask[]

const OPTIONS = [...LOAD_OPTIONS.filter((name) => name !== 'allowMissing'), 'tokenizer', 'normalizeAudio']
/** Those with a head for CTC read their folder's settings themselves. */
const READS_WAVEFORMS: readonly unknown[] = [
  Wav2Vec2,
  WavLM,
  ...Object.values(CLASSIFIERS).map(({ Network }) => Network),
]
const READS_TEXT: readonly unknown[] = [DecoderLM, Bert, Roberta, RobertaForSequenceClassification]

/** The network of a folder, of a repository of the hub or as it is given, in evaluation mode. */
export async function loaded<T extends PipelineTask>(
  where: string,
  task: T,
  from: string | NetworkOf<T>,
  options: PipelineOptions,
): Promise<Loaded<NetworkOf<T>>> {
  requireOptions(where, options, OPTIONS)
  const { tokenizer: given, normalizeAudio, ...load } = options
  if (given !== undefined && !(given instanceof Tokenizer)) throw misuse(where, 'tokenizer', 'a Tokenizer', given)
  if (normalizeAudio !== undefined && typeof normalizeAudio !== 'boolean') {
    throw misuse(where, 'normalizeAudio', 'true or false', normalizeAudio)
  }
  const takes: Takes = TAKES[task]
  if (typeof from !== 'string') {
    const Network = Object.values(takes).find((one) => (from as unknown) instanceof one.Network)?.Network
    if (Network === undefined) throw wrongModel(where, task, (from as object | null)?.constructor?.name, undefined)
    const [option] = Object.keys(defined(load))
    if (option) throw new ConfigError(`${where}: ${option} is for loading, and the network is loaded`, { option })
    const tokenizer = needed(where, Network, given)
    if (Network !== SpectraClassifier) (from as unknown as { eval(): unknown }).eval()
    else (from as SpectraClassifier).model.eval()
    return { model: from, tokenizer, normalizesAudio: normalizeAudio ?? true, owned: false }
  }
  const isFile = (await stat(from).catch(() => undefined))?.isFile() ?? false
  const { device, dtype, seed, mmap, quantize, ...hub } = load
  const directory = isFile ? from : await resolveModel(from, hub as ResolveModelOptions)
  const Network = isFile && 'beats' in takes ? Beats : await networkOf(where, task, directory)
  const reads = READS_TEXT.includes(Network)
  const tokenizer = reads ? (given ?? (await Tokenizer.fromPretrained(directory))) : needed(where, Network, given)
  const normalizesAudio = normalizeAudio ?? (isFile || (await normalizes(directory, Network)))
  const model = await Network.fromPretrained(directory, defined({ device, dtype, seed, mmap, quantize }))
  if (!(model instanceof SpectraClassifier)) (model as { eval(): unknown }).eval()
  return { model: model as NetworkOf<T>, tokenizer, normalizesAudio, owned: true }
}

function needed(where: string, Network: NetworkClass<unknown>, tokenizer: Tokenizer | undefined): Tokenizer | null {
  const reads = READS_TEXT.includes(Network)
  if (reads && tokenizer === undefined) {
    throw new ConfigError(`${where}: a ${Network.name} that is loaded wants its tokenizer: { tokenizer }`)
  }
  if (reads || tokenizer === undefined) return tokenizer ?? null
  throw new ConfigError(`${where}: ${Network.name} takes no tokenizer here`, { argument: 'tokenizer' })
}

/** The class that the folder's config.json names, where the task takes it. */
async function networkOf(where: string, task: PipelineTask, directory: string): Promise<NetworkClass<unknown>> {
  const { modelType, architectures } = await described(directory)
  const architecture = Array.isArray(architectures) ? architectures[0] : undefined
  const kind = fitting(TAKES[task], modelType, architecture)
  if (kind === undefined) throw wrongModel(where, task, String(architecture ?? modelType), modelType)
  return kind
}

/** What config.json says; of files of other programs, what they can only be. */
async function described(directory: string): Promise<NetworkConfig> {
  if (isCTranslate2(directory)) return { modelType: 'whisper' }
  return ggufPath(directory) === null ? readConfig(directory) : { modelType: 'llama' }
}

function fitting(takes: Takes, modelType: unknown, architecture: unknown): NetworkClass<unknown> | undefined {
  const found = typeof modelType === 'string' && Object.hasOwn(takes, modelType) ? takes[modelType] : undefined
  const fits = found?.head === undefined || typeof architecture !== 'string' || isNamed(found, architecture)
  return fits ? found?.Network : undefined
}

/** voxtorch's own files of language models name the class as it is. */
const isNamed = ({ Network, head = '' }: Takes[string], architecture: string): boolean =>
  architecture.endsWith(head) || architecture === Network.name

function wrongModel(where: string, task: PipelineTask, name: string | undefined, modelType: unknown): ConfigError {
  const classes = (one: PipelineTask) => [
    ...new Set(Object.values<Takes[string]>(TAKES[one]).map((it) => it.Network.name)),
  ]
  const others = TASKS.filter(
    (one) => one !== task && (classes(one).includes(name ?? '') || fitting(TAKES[one], modelType, name)),
  )
  const hint = others.length > 0 ? `; it is for ${others.map((one) => `'${one}'`).join(' and ')}` : ''
  return new ConfigError(`${where} takes ${classes(task).join(', ')}, not ${name ?? 'what was given'}${hint}`, {
    task,
    architecture: name,
  })
}

/** Whether clips get mean 0 and variance 1: of networks that read waveforms as wav2vec 2.0 does. */
async function normalizes(directory: string, Network: NetworkClass<unknown>): Promise<boolean> {
  if (!READS_WAVEFORMS.includes(Network)) return true
  return (await readFeatureExtractor(directory, WAVEFORM_KEYS)).doNormalize !== false
}
