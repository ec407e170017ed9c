import { FreshValues } from '../../../kit/fresh-values.js'
import { opAsync } from '../../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../../nn/native-module.js'
import type { NetworkOptions } from '../../../nn/parameter.js'
import type { Tensor } from '../../../tensor/index.js'
import { type CompleteSpectraConfig, frameCount, nativeConfig, type SpectraConfig, spectraConfig } from './config.js'
import {
  type LoadSpectraOptions,
  loadSpectra,
  type SpectraEncoders,
  type SpectraKind,
  type SpectraLoadReport,
  saveSpectra,
} from './files.js'
import { ANSWERING } from './untrained.js'

/**
 * Texts with one or two clips of speech each. A network on CUDA waits once for `attentionMask` and `audioLengths` that are
 * there, and for nothing where they are on the CPU.
 */
export interface SpectraInputs {
  /** [batch, time], int64. */
  inputIds: Tensor
  /** bool [batch, time], true for real tokens, which come before padding. */
  attentionMask: Tensor
  /** [batch, time], 0 for what was said before and 1 for what is said now; default all 0. */
  tokenTypeIds?: Tensor | null
  /** Waveforms at 16 kHz: [batch, samples], or with two clips to a text [2 batch, samples], previous before current. */
  inputValues: Tensor
  /** int64 [rows of inputValues]: how many samples are valid. What comes after them is never looked at. */
  audioLengths: Tensor
  /** Default 1. */
  audiosPerText?: 1 | 2
  /** Whether the outputs have attention maps. Default false. */
  outputAttentions?: boolean
}

export interface SpectraOutput {
  /** States of the text, then of the speech, after fusion: [batch, time + audio, hiddenSize]. */
  lastHiddenState: Tensor
  /** bool [batch, time + audio], true where those states count. */
  attentionMask: Tensor
  /** Of the text encoder: [batch, time, hiddenSize]. */
  textHiddenState: Tensor
  /** Of the audio encoder: [batch, audio, hiddenSize]. */
  audioHiddenState: Tensor
  /** Per fusion layer [batch, heads, time + audio, time + audio]; empty unless asked for, as the next two. */
  attentions: Tensor[]
  /** Per layer of the text encoder [batch, heads, time, time]. */
  textAttentions: Tensor[]
  /** Per layer of the audio encoder [batch, heads, audio, audio]. */
  audioAttentions: Tensor[]
}

/** Examples of pre-training: a text with the true and one with a wrong response, and the clips of both. */
export interface SpectraPretrainingInputs {
  /** [2 batch, time], int64: for each example the positive and the negative text. */
  inputIds: Tensor
  /** bool [2 batch, time] */
  attentionMask: Tensor
  /** [2 batch, time] */
  tokenTypeIds?: Tensor | null
  /** int64 [batch, time]: tokens to predict of the positive texts; -100 for none. */
  mlmLabels: Tensor
  /** [3 batch, samples]: for each example the previous, the current and the negative clip. */
  inputValues: Tensor
  /** int64 [3 batch] */
  audioLengths: Tensor
  /** int8 [3 batch, frames]: 0 untouched, 1 zeroed, 2 replaced by frame `mamSource`, 3 kept; all but 0 are predicted. */
  mamMask: Tensor
  /** int64 [3 batch, frames] */
  mamSource: Tensor
  /** bool [batch, time]: the first sub-word of each word of the positive texts. */
  startMask: Tensor
  /** bool [batch, time]: the last one. */
  endMask: Tensor
  /** [words], floating point: when each word begins, in units of 10 s, in row-major order of `startMask`. */
  starts: Tensor
  /** [words]: when it ends. */
  ends: Tensor
}

export interface SpectraPretrainingOutput {
  /** The sum of the four. */
  loss: Tensor
  /** Cross-entropy over the masked tokens; 0 where nothing is masked. */
  mlmLoss: Tensor
  /** Mean absolute difference over the masked frames of the previous and current clips; 0 where nothing is masked. */
  mamLoss: Tensor
  /** Cross-entropy over the four pairings of each example's texts and clips. */
  crsLoss: Tensor
  /** Mean squared error over all starts and ends; 0 without words. */
  tppLoss: Tensor
  /** [4 batch, 4]: per example text and speech p p, p n, n p, n n; their classes are 0 to 3. */
  crsLogits: Tensor
  /** [words] */
  startPredictions: Tensor
  /** [words] */
  endPredictions: Tensor
}

export interface SpectraPrediction {
  /** [batch, time + audio, hiddenSize] */
  lastHiddenState: Tensor
  attentionMask: Tensor
  /** [batch, 4]; class 0: text and speech both belong to the context. */
  crsLogits: Tensor
  /** [batch, time]: when the word that a token begins starts, in units of 10 s from the start of its own clip. */
  starts: Tensor
  /** [batch, time]: when the word that a token closes ends. */
  ends: Tensor
  attentions: Tensor[]
}

export interface SpectraClassificationInputs extends SpectraInputs {
  /** [batch]: int64 classes, or with one label quantities of any dtype. */
  labels?: Tensor | null
}

export interface SpectraClassificationOutput {
  /** [batch, numLabels] */
  logits: Tensor
  /** Mean over the batch, L1 with one label and cross-entropy with more; null without labels. */
  loss: Tensor | null
  /** [batch, time + audio, hiddenSize] */
  lastHiddenState: Tensor
  attentionMask: Tensor
  attentions: Tensor[]
}

const forward = opAsync('voxtorch::spectra_forward')
const forwardPretraining = opAsync('voxtorch::spectra_pretraining_forward')
const predict = opAsync('voxtorch::spectra_pretraining_predict')
const classify = opAsync('voxtorch::spectra_classification_forward')

const kind: SpectraKind = { kind: 'spectra', architecture: 'Spectra', heads: [] }
const pretrainingKind: SpectraKind = {
  kind: 'spectra_pretraining',
  architecture: 'SpectraForPreTraining',
  heads: ['mlm_head', 'mam_head', 'selection_head', 'start_prediction_head', 'end_prediction_head'],
}
const classificationKind: SpectraKind = {
  kind: 'spectra_classification',
  architecture: 'SpectraForSequenceClassification',
  heads: ['head'],
}

type Factory = NetworkOptions & { initialize?: boolean }

/** What the three networks have in common. */
abstract class SpectraNetwork extends NativeModule {
  readonly config: CompleteSpectraConfig
  /** What the file was found to be; null for a network that was not loaded. */
  loadReport: SpectraLoadReport | null = null
  readonly #kind: SpectraKind
  #fresh: FreshValues | undefined

  constructor(which: SpectraKind, config: SpectraConfig | string, options: Factory) {
    const complete = spectraConfig(config)
    super(makeNative(which.kind, nativeConfig(complete), options))
    this.config = complete
    this.#kind = which
  }

  /** Notes what a file was found to be. @internal */
  loaded(report: SpectraLoadReport): this {
    this.loadReport = report
    const heads = report.fresh.filter((name) => ANSWERING.test(name))
    this.#fresh = new FreshValues(this, heads)
    return this
  }

  /**
   * Tensors of the heads that answer (`head`, `selection_head`, `start_prediction_head`, `end_prediction_head`) that the
   * file lacked and that nothing has changed since: whatever stands on them answers at random, and refuses.
   */
  untrainedHeads(): string[] {
    return this.#fresh?.left(this) ?? []
  }

  /**
   * Frames that clips of these lengths, in samples, count as: whole ones, so 0 for one too short; or with
   * `compat: 'published'` what the authors' code counts.
   */
  frameCounts(audioLengths: readonly number[]): number[] {
    return audioLengths.map((samples) => frameCount(this.config, samples))
  }

  /**
   * Writes the published layout (text_config.json, audio_config.json, and the weights as model.safetensors) and a
   * config.json with the choices that the published files have no place for. `fromPretrained` reads it.
   */
  save(directory: string): Promise<void> {
    return saveSpectra(this.#kind, directory, this, this.config)
  }
}

const load = async <M extends SpectraNetwork>(
  which: SpectraKind,
  from: string | SpectraEncoders,
  options: LoadSpectraOptions,
  build: (config: SpectraConfig, factory: Factory) => M,
): Promise<M> => {
  const { network, report } = await loadSpectra(which, from, options, build)
  return network.loaded(report)
}

/**
 * SPECTRA (Yu et al. 2023, https://arxiv.org/abs/2305.11579) without heads: RoBERTa reads the text, WavLM hears the
 * speech, and a RoBERTa layer attends to both. Runs in native code; the parameters have the names of the published
 * checkpoint.
 *
 * What the authors' code leaves open or gets wrong is decided so:
 * - Padding never changes a result. A clip has as many frames as it has alone, norms over time count its own samples
 *   only, all masks are boolean. `compat: 'published'` computes as the authors' code does instead.
 * - Speech may be absent: length 0, or too few samples for one frame, is no speech at all, also as one of two clips.
 *   With `compat: 'published'` such a clip has a frame.
 * - The number of convolutions is the configuration's; it is not taken for seven.
 * - The vector before a single clip (`hasAudioCls`, false by default) is attended to; in the authors' code it is masked,
 *   and the last two rows of the batch are zeroed. `compat` has the mask, `legacyAudioClsRows` the zeroes too.
 * - How many clips a text has is said by `audiosPerText`, never guessed from numbers of rows.
 * - In pre-training the masks of text and speech are expanded as their states are; `legacyFusionMask` has the masks of
 *   other rows, as the authors' code. Frames to predict are cut off from the gradient unless `mamTargetGradients`.
 * - Token types: two rows. The table of a plain RoBERTa has one, which is copied.
 * - The pooler of RoBERTa is there, as in the checkpoint, and not used.
 */
export class Spectra extends SpectraNetwork {
  constructor(config: SpectraConfig, options: Factory = {}) {
    super(kind, config, options)
  }

  /**
   * Random weights. `config` is a configuration or `'base'`, the published size with seven convolutions.
   * @throws ConfigError for unknown options and sizes that do not fit
   */
  static fromConfig(config: SpectraConfig | string, options: NetworkOptions = {}): Spectra {
    return new Spectra(spectraConfig(config), options)
  }

  /**
   * The published layout, from a folder or hub repository: text_config.json, audio_config.json and pytorch_model.bin (of
   * either format of torch) or model.safetensors, the names with or without `model.` and `module.` before them; heads are
   * left out. Or, for a fresh start, a RoBERTa and a WavLM: `{ text, audio }`. `loadReport` says what was found.
   * An eighth convolution, `audio_cls` and `audio_sep` may be missing; they get fresh values.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(from: string | SpectraEncoders, options: LoadSpectraOptions = {}): Promise<Spectra> {
    return load(kind, from, options, (config, factory) => new Spectra(config, factory))
  }

  /**
   * Runs on the executor.
   * @throws ShapeError for inputs that do not fit each other
   */
  override forward(inputs: SpectraInputs): Promise<SpectraOutput> {
    return forward(withActiveAdapters(this), inputsOf(inputs)) as Promise<SpectraOutput>
  }
}

/** SPECTRA with the heads of its pre-training; see {@link Spectra}. */
export class SpectraForPreTraining extends SpectraNetwork {
  constructor(config: SpectraConfig, options: Factory = {}) {
    super(pretrainingKind, config, options)
    // One tensor under two names, as in the checkpoint.
    for (const name of ['mlm_head', 'mam_head']) {
      const head = this.get(name) as NativeModule & { bias?: Tensor }
      head.bias = (head.get('decoder') as NativeModule & { bias: Tensor }).bias
    }
  }

  static fromConfig(config: SpectraConfig | string, options: NetworkOptions = {}): SpectraForPreTraining {
    return new SpectraForPreTraining(spectraConfig(config), options)
  }

  /** As {@link Spectra.fromPretrained}; heads that the file lacks get fresh values, with a warning that names them. */
  static fromPretrained(
    from: string | SpectraEncoders,
    options: LoadSpectraOptions = {},
  ): Promise<SpectraForPreTraining> {
    return load(pretrainingKind, from, options, (config, factory) => new SpectraForPreTraining(config, factory))
  }

  /**
   * The four losses. Runs on the executor.
   * @throws ShapeError for inputs that do not fit each other; IndexError for masks beyond a clip's frames and for labels
   * that are no token
   */
  override forward(inputs: SpectraPretrainingInputs): Promise<SpectraPretrainingOutput> {
    const { inputIds, attentionMask, tokenTypeIds, mlmLabels, inputValues, audioLengths } = inputs
    const { mamMask, mamSource, startMask, endMask, starts, ends } = inputs
    const texts = { inputIds, attentionMask, tokenTypeIds, mlmLabels, startMask, endMask, starts, ends }
    const clips = { inputValues, audioLengths, mamMask, mamSource }
    return forwardPretraining(withActiveAdapters(this), { ...texts, ...clips }) as Promise<SpectraPretrainingOutput>
  }

  /** What the heads say of texts and their speech: where words lie in time, and whether both belong together. */
  predict(inputs: SpectraInputs): Promise<SpectraPrediction> {
    return predict(withActiveAdapters(this), inputsOf(inputs)) as Promise<SpectraPrediction>
  }
}

/** SPECTRA with a head on the first fused state: linear, GELU, linear; see {@link Spectra}. */
export class SpectraForSequenceClassification extends SpectraNetwork {
  constructor(config: SpectraConfig, options: Factory = {}) {
    super(classificationKind, config, options)
  }

  static fromConfig(config: SpectraConfig | string, options: NetworkOptions = {}): SpectraForSequenceClassification {
    return new SpectraForSequenceClassification(spectraConfig(config), options)
  }

  /**
   * As {@link Spectra.fromPretrained}; without a head in the file it gets fresh values and `config.numLabels` outputs,
   * with a warning that `freshHeads: true` takes away.
   */
  static fromPretrained(
    from: string | SpectraEncoders,
    options: LoadSpectraOptions = {},
  ): Promise<SpectraForSequenceClassification> {
    const build = (config: SpectraConfig, factory: Factory) => new SpectraForSequenceClassification(config, factory)
    return load(classificationKind, from, options, build)
  }

  override forward(inputs: SpectraClassificationInputs): Promise<SpectraClassificationOutput> {
    return classify(withActiveAdapters(this), {
      ...inputsOf(inputs),
      labels: inputs.labels,
    }) as Promise<SpectraClassificationOutput>
  }
}

/** What the operators know; a batch may hold more. */
function inputsOf(inputs: SpectraInputs): SpectraInputs {
  const {
    inputIds,
    attentionMask,
    tokenTypeIds,
    inputValues,
    audioLengths,
    audiosPerText = 1,
    outputAttentions,
  } = inputs
  return { inputIds, attentionMask, tokenTypeIds, inputValues, audioLengths, audiosPerText, outputAttentions }
}
