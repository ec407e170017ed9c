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
import { PREDICTION_HEADS } from './untrained.js'

/**
 * Texts with one or two clips of speech each. On CUDA, the network synchronizes once for `attentionMask` and `audioLengths` if they are on
 * the device; on the CPU they need no synchronization.
 */
export interface SpectraInputs {
  /** [batch, time], int64. */
  inputIds: Tensor
  /** bool [batch, time], true for real tokens, which come before padding. */
  attentionMask: Tensor
  /** [batch, time], 0 for previous turns and 1 for the current turn. Default all 0. */
  tokenTypeIds?: Tensor | null
  /** Waveforms at 16 kHz: [batch, samples], or with two clips to a text [2 batch, samples], previous before current. */
  inputValues: Tensor
  /** int64 [rows of inputValues]: number of valid samples. Samples after them are ignored. */
  audioLengths: Tensor
  /** Default 1. */
  audiosPerText?: 1 | 2
  /** Return the attention maps. Default false. */
  outputAttentions?: boolean
}

export interface SpectraOutput {
  /** States of the text, then of the speech, after fusion: [batch, time + audio, hiddenSize]. */
  lastHiddenState: Tensor
  /** bool [batch, time + audio], true for valid states. */
  attentionMask: Tensor
  /** States of the text encoder: [batch, time, hiddenSize]. */
  textHiddenState: Tensor
  /** States of the audio encoder: [batch, audio, hiddenSize]. */
  audioHiddenState: Tensor
  /** Per fusion layer [batch, heads, time + audio, time + audio]; empty without `outputAttentions`, like the next two. */
  attentions: Tensor[]
  /** Per layer of the text encoder [batch, heads, time, time]. */
  textAttentions: Tensor[]
  /** Per layer of the audio encoder [batch, heads, audio, audio]. */
  audioAttentions: Tensor[]
}

/** Pre-training examples: a text with the true response and one with a wrong response, and the clips of both. */
export interface SpectraPretrainingInputs {
  /** [2 batch, time], int64: the positive and the negative text of each example. */
  inputIds: Tensor
  /** bool [2 batch, time] */
  attentionMask: Tensor
  /** [2 batch, time] */
  tokenTypeIds?: Tensor | null
  /** int64 [batch, time]: target tokens of the positive texts; -100 for none. */
  mlmLabels: Tensor
  /** [3 batch, samples]: the previous, the current and the negative clip of each example. */
  inputValues: Tensor
  /** int64 [3 batch] */
  audioLengths: Tensor
  /** int8 [3 batch, frames]: 0 unmasked, 1 zeroed, 2 replaced by frame `mamSource`, 3 kept; 1 to 3 are targets. */
  mamMask: Tensor
  /** int64 [3 batch, frames] */
  mamSource: Tensor
  /** bool [batch, time]: the first token of each word of the positive texts. */
  startMask: Tensor
  /** bool [batch, time]: the last token of each word. */
  endMask: Tensor
  /** [words], floating point: start of each word, in units of 10 s, in row-major order of `startMask`. */
  starts: Tensor
  /** [words]: end of each word. */
  ends: Tensor
}

export interface SpectraPretrainingOutput {
  /** Sum of the four losses. */
  loss: Tensor
  /** Cross-entropy over the masked tokens; 0 without masked tokens. */
  mlmLoss: Tensor
  /** Mean absolute error over the masked frames of the previous and current clips; 0 without masked frames. */
  mamLoss: Tensor
  /** Cross-entropy over the four pairings of each example's texts and clips. */
  crsLoss: Tensor
  /** Mean squared error over all starts and ends; 0 without words. */
  tppLoss: Tensor
  /** [4 batch, 4]: per example, the pairs of text and speech: positive-positive, p-n, n-p, n-n, with classes 0 to 3. */
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
  /** [batch, 4]; class 0: text and speech both match the context. */
  crsLogits: Tensor
  /** [batch, time]: start of the word whose first token this is, in units of 10 s from the start of its clip. */
  starts: Tensor
  /** [batch, time]: end of the word whose last token this is. */
  ends: Tensor
  attentions: Tensor[]
}

export interface SpectraClassificationInputs extends SpectraInputs {
  /** [batch]: int64 class indices, or with one label, values of any dtype. */
  labels?: Tensor | null
}

export interface SpectraClassificationOutput {
  /** [batch, numLabels] */
  logits: Tensor
  /** Mean over the batch: L1 with one label, cross-entropy with more; null without labels. */
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

/** Common base of the three networks. */
abstract class SpectraNetwork extends NativeModule {
  readonly config: CompleteSpectraConfig
  /** Properties of the loaded file; null for a network that was not loaded. */
  loadReport: SpectraLoadReport | null = null
  readonly #kind: SpectraKind
  #fresh: FreshValues | undefined

  constructor(which: SpectraKind, config: SpectraConfig | string, options: Factory) {
    const complete = spectraConfig(config)
    super(makeNative(which.kind, nativeConfig(complete), options))
    this.config = complete
    this.#kind = which
  }

  /** Store the properties of the loaded file. @internal */
  loaded(report: SpectraLoadReport): this {
    this.loadReport = report
    const heads = report.fresh.filter((name) => PREDICTION_HEADS.test(name))
    this.#fresh = new FreshValues(this, heads)
    return this
  }

  /**
   * Return the tensors of the heads (`head`, `selection_head`, `start_prediction_head`, `end_prediction_head`) that are missing in the file
   * and unchanged since loading. Functions that use these heads throw an error.
   */
  untrainedHeads(): string[] {
    return this.#fresh?.left(this) ?? []
  }

  /**
   * Return the frames of clips of these lengths in samples: complete frames, so 0 for a clip that is too short; with
   * `compat: 'published'` the number that the authors' code counts.
   */
  frameCounts(audioLengths: readonly number[]): number[] {
    return audioLengths.map((samples) => frameCount(this.config, samples))
  }

  /**
   * Save the published layout (text_config.json, audio_config.json, and the weights as model.safetensors), and a config.json with the
   * options that published files lack. `fromPretrained` loads it.
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
 * SPECTRA (Yu et al. 2023, https://arxiv.org/abs/2305.11579) without heads: RoBERTa encodes the text, WavLM encodes the speech, and a
 * RoBERTa layer attends to both. Runs in native code; the parameters have the names of the published checkpoint.
 *
 * Differences from the authors' code:
 * - Padding never changes a result. A clip has as many frames as it has alone, norms over time use only its own samples, and all masks are
 *   boolean. `compat: 'published'` computes like the authors' code instead.
 * - Speech is optional: a clip of length 0, or with too few samples for one frame, has no frames, also as one of two clips. With
 *   `compat: 'published'` such a clip has one frame.
 * - The number of convolutions comes from the configuration; it is not fixed to seven.
 * - The vector before a single clip (`hasAudioCls`, false by default) is attended to. The authors' code masks it, and zeroes the last two
 *   rows of the batch. `compat` masks it; `legacyAudioClsRows` also zeroes the rows.
 * - `audiosPerText` sets the number of clips per text; it is not inferred from the number of rows.
 * - In pre-training, the masks of text and speech are expanded like their states. `legacyFusionMask` uses the masks of other rows, like the
 *   authors' code. Target frames are detached from the gradient unless `mamTargetGradients` is set.
 * - There are two token types. The table of a plain RoBERTa has one row, which is duplicated.
 * - RoBERTa's pooler is part of the network, as in the checkpoint, but unused.
 */
export class Spectra extends SpectraNetwork {
  constructor(config: SpectraConfig, options: Factory = {}) {
    super(kind, config, options)
  }

  /**
   * Create a network with random weights. `config` is a configuration or `'base'`, the published size with seven convolutions.
   * @throws ConfigError for unknown options and incompatible sizes
   */
  static fromConfig(config: SpectraConfig | string, options: NetworkOptions = {}): Spectra {
    return new Spectra(spectraConfig(config), options)
  }

  /**
   * Load the published layout from a folder or Hub repository: text_config.json, audio_config.json and pytorch_model.bin (of either format
   * of torch) or model.safetensors, with or without `model.` and `module.` before the names; heads are ignored. Or start from a RoBERTa and
   * a WavLM: `{ text, audio }`. `loadReport` has the properties of the file. An eighth convolution, `audio_cls` and `audio_sep` may be
   * missing; they get random values.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(from: string | SpectraEncoders, options: LoadSpectraOptions = {}): Promise<Spectra> {
    return load(kind, from, options, (config, factory) => new Spectra(config, factory))
  }

  /**
   * Encode texts and speech. Runs on the executor.
   * @throws ShapeError for inputs whose shapes do not match
   */
  override forward(inputs: SpectraInputs): Promise<SpectraOutput> {
    return forward(withActiveAdapters(this), inputsOf(inputs)) as Promise<SpectraOutput>
  }
}

/** SPECTRA with the heads of its pre-training; see {@link Spectra}. */
export class SpectraForPreTraining extends SpectraNetwork {
  constructor(config: SpectraConfig, options: Factory = {}) {
    super(pretrainingKind, config, options)
    // Tied parameters, as in the checkpoint.
    for (const name of ['mlm_head', 'mam_head']) {
      const head = this.get(name) as NativeModule & { bias?: Tensor }
      head.bias = (head.get('decoder') as NativeModule & { bias: Tensor }).bias
    }
  }

  static fromConfig(config: SpectraConfig | string, options: NetworkOptions = {}): SpectraForPreTraining {
    return new SpectraForPreTraining(spectraConfig(config), options)
  }

  /** Load a network as {@link Spectra.fromPretrained}. Missing heads get random values, with a warning that names them. */
  static fromPretrained(
    from: string | SpectraEncoders,
    options: LoadSpectraOptions = {},
  ): Promise<SpectraForPreTraining> {
    return load(pretrainingKind, from, options, (config, factory) => new SpectraForPreTraining(config, factory))
  }

  /**
   * Compute the four losses. Runs on the executor.
   * @throws ShapeError for inputs whose shapes do not match; IndexError for masks beyond a clip's frames and for labels outside of the
   * vocabulary
   */
  override forward(inputs: SpectraPretrainingInputs): Promise<SpectraPretrainingOutput> {
    const { inputIds, attentionMask, tokenTypeIds, mlmLabels, inputValues, audioLengths } = inputs
    const { mamMask, mamSource, startMask, endMask, starts, ends } = inputs
    const texts = { inputIds, attentionMask, tokenTypeIds, mlmLabels, startMask, endMask, starts, ends }
    const clips = { inputValues, audioLengths, mamMask, mamSource }
    return forwardPretraining(withActiveAdapters(this), { ...texts, ...clips }) as Promise<SpectraPretrainingOutput>
  }

  /** Predict the start and end of words, and whether text and speech match the context. */
  predict(inputs: SpectraInputs): Promise<SpectraPrediction> {
    return predict(withActiveAdapters(this), inputsOf(inputs)) as Promise<SpectraPrediction>
  }
}

/** SPECTRA with a head on the first fused state: linear, GELU, linear. See {@link Spectra}. */
export class SpectraForSequenceClassification extends SpectraNetwork {
  constructor(config: SpectraConfig, options: Factory = {}) {
    super(classificationKind, config, options)
  }

  static fromConfig(config: SpectraConfig | string, options: NetworkOptions = {}): SpectraForSequenceClassification {
    return new SpectraForSequenceClassification(spectraConfig(config), options)
  }

  /**
   * Load a network as {@link Spectra.fromPretrained}. A missing head gets random values and `config.numLabels` outputs, with a warning that
   * `freshHeads: true` suppresses.
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

/** Return only the inputs of the operators; a batch may have more fields. */
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
