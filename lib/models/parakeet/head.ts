import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { AudioClip } from '../../audio/clip.js'
import type { NemoLogMel } from '../../audio/features.js'
import { writeFolderAtomically } from '../../base/atomic-folder.js'
import { requireNumber, requireOptions, requireWhole } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { writeJson } from '../../files/json/json.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'
import { Tokenizer } from '../../text/tokenizer.js'
import type { ConfigKeys } from '../config-keys.js'
import { headClass, type NetworkConfig, type NetworkLayout } from '../network.js'
import type { SaveNetworkOptions } from '../pretrained.js'
import { type ParakeetConfig, savedParakeet, withSpread } from './config.js'
import { FastConformerEncoder, type FastConformerInputs, subsampledLength } from './encoder.js'
import { featuresOf, type ParakeetFeatureSettings, readFeatures, usualFeatures, writeFeatures } from './features.js'
import { nemoCheckpoint, takeExtras } from './nemo.js'
import { type ParakeetTranscribeOptions, type ParakeetTranscription, transcribeParakeet } from './transcribe.js'

/** Tokens that decoding finds in a row: one entry of each list per token. */
export interface ParakeetHypothesis {
  /** Token ids without blanks. */
  tokens: number[]
  /** Frame of the encoder at which each token starts. */
  starts: number[]
  /** Number of frames of each token: CTC, the run of equal predictions; RNN-T, 1; TDT, as predicted. */
  durations: number[]
  /** Log probability of the tokens, with beams: of all alignments that the beam kept. */
  score?: number
}

/** Options of beam search, for RNN-T and TDT only. */
export interface ParakeetBeamOptions {
  /**
   * Number of hypotheses that are kept for each clip, at most 256; 1 is greedy decoding. The search is that of Graves 2012
   * (https://arxiv.org/abs/1211.3711), with durations for TDT; hypotheses with the same tokens are merged. Default 1.
   */
  numBeams?: number
  /** Exponent of the number of tokens and the end, by which log probabilities are divided at the end. Default 0: they are not. */
  lengthPenalty?: number
}

export const PARAKEET_BEAM_KEYS = ['numBeams', 'lengthPenalty']

/** Static members of a class of Parakeet models. */
export interface ParakeetHeadClass {
  readonly kind: 'ctc' | 'rnnt' | 'tdt'
  readonly sizes: Record<string, NetworkConfig>
  readonly keys: ConfigKeys
}

const MOST_BEAMS = 256

const ARCHITECTURES = { ctc: 'ParakeetForCTC', rnnt: 'ParakeetForRNNT', tdt: 'ParakeetForTDT' } as const

function layoutOf({ kind, sizes, keys }: ParakeetHeadClass): NetworkLayout<ParakeetConfig> {
  return {
    kind: 'fast_conformer',
    modelType: `parakeet_${kind}`,
    architecture: ARCHITECTURES[kind],
    sizes,
    keys,
    prefix: '',
    ignored: [],
    optional: [/\.num_batches_tracked$/],
    completed: withSpread,
    saved: savedParakeet,
    // Decoding reads the weights of the head itself.
    packed: 'encoder',
    foreign: (place) => nemoCheckpoint(place, kind),
  }
}

const Base = headClass<ParakeetConfig, ParakeetHeadClass>(layoutOf, () => ({
  field: 'encoder',
  make: ({ encoderConfig }, options) => new FastConformerEncoder(encoderConfig ?? {}, options),
}))

/** Base class of Parakeet models: encoder, features, tokenizer and transcription. */
export abstract class ParakeetModel extends Base {
  static readonly kind: 'ctc' | 'rnnt' | 'tdt'
  static readonly sizes: Record<string, NetworkConfig>
  static readonly keys: ConfigKeys
  declare readonly encoder: FastConformerEncoder
  /** Tokenizer of `transcribe`; null if the folder has none. */
  tokenizer: Tokenizer | null = null
  /** Settings of the features, from preprocessor_config.json. */
  features: ParakeetFeatureSettings

  constructor(config: ParakeetConfig, options: MakeOptions = {}) {
    super(config, options)
    this.features = usualFeatures(this.encoder.config.numMelBins as number)
  }

  /** Read the other files of the directory: tokenizer and feature extractor. @internal */
  async loaded(directory: string): Promise<void> {
    const bands = this.encoder.config.numMelBins as number
    const nemo = takeExtras(this.config)
    if (nemo !== undefined) {
      this.features = { ...usualFeatures(bands), ...nemo.features }
      this.tokenizer = nemo.tokenizer
      return
    }
    const files = ['tokenizer.json', 'tokenizer.model']
    if (files.some((name) => existsSync(join(directory, name))))
      this.tokenizer = await Tokenizer.fromPretrained(directory)
    this.features = await readFeatures(directory, bands)
  }

  /**
   * Compute the input of the network from clips [n] at `features.samplingRate`, padded to one batch: features and mask.
   * @throws OperatorError for a clip shorter than two hops, 20 ms
   */
  extractFeatures(clips: readonly Tensor[]): Promise<NemoLogMel> {
    return featuresOf(clips, this.features)
  }

  /** Return the number of frames for features of these lengths. */
  featureLengths(lengths: readonly number[]): number[] {
    return lengths.map((length) => subsampledLength(this.encoder.config, length))
  }

  /**
   * Decode each row without a graph: greedily, or with `numBeams` by beam search.
   * @throws ConfigError for invalid options, and for beams of a CTC model
   */
  generate(inputs: FastConformerInputs, options: ParakeetBeamOptions = {}): Promise<ParakeetHypothesis[]> {
    const beam = this.beamOptions(`${this.constructor.name}.generate`, options)
    return noGrad(() =>
      scope(async () => {
        const { inputFeatures, attentionMask = null } = inputs
        const { lastHiddenState, attentionMask: valid } = await this.encoder.forward({ inputFeatures, attentionMask })
        const [batch, frames] = lastHiddenState.shape as [number, number]
        const lengths = valid ? valid.sum([-1]) : lastHiddenState.newFull([batch], frames, { dtype: 'int64' })
        return this.decodeStates(lastHiddenState, lengths, beam)
      }),
    )
  }

  /** Check the options of beam search. @internal */
  beamOptions(where: string, options: ParakeetBeamOptions): Required<ParakeetBeamOptions> {
    requireOptions(where, options, PARAKEET_BEAM_KEYS)
    const { numBeams = 1, lengthPenalty = 0 } = options
    requireWhole(where, 'numBeams', numBeams, 1)
    requireNumber(where, 'numBeams', numBeams, { below: MOST_BEAMS + 1 })
    requireNumber(where, 'lengthPenalty', lengthPenalty)
    const wrong = (key: string, expected: string, value: number) =>
      new ConfigError(`${where}: ${key}: expected ${expected}, got ${value}. Leave it out.`, { [key]: value })
    const { kind } = this.constructor as typeof ParakeetModel
    if (kind === 'ctc' && numBeams > 1) throw wrong('numBeams', '1 for a CTC model', numBeams)
    if (numBeams === 1 && lengthPenalty !== 0) throw wrong('lengthPenalty', '0 without beams', lengthPenalty)
    return { numBeams, lengthPenalty }
  }

  /** Decode states of the encoder [batch, frames, hiddenSize], of which `lengths` int64 [batch] are valid. @internal */
  abstract decodeStates(
    states: Tensor,
    lengths: Tensor,
    beam: Required<ParakeetBeamOptions>,
  ): Promise<ParakeetHypothesis[]>

  /**
   * Transcribe a recording.
   *
   * ```ts
   * const { text, words } = await model.transcribe('speech.wav', { timestamps: 'word' })
   * ```
   * @param audio a file, its bytes, the result of `readAudio`, or samples [n]
   * @throws ConfigError for invalid options, and for a model without a tokenizer; DataError for a clip shorter than 20 ms
   */
  transcribe(audio: AudioClip, options: ParakeetTranscribeOptions = {}): Promise<ParakeetTranscription> {
    return transcribeParakeet(this, audio, options)
  }

  /** Return settings for generation_config.json. */
  protected generationConfig(): object | null {
    return null
  }

  /** Write config.json, model.safetensors, the tokenizer and preprocessor_config.json, in transformers' layout. */
  override async save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    await writeFolderAtomically(directory, CheckpointError, async (folder) => {
      await super.save(folder, options)
      await writeFeatures(folder, this.features)
      const generation = this.generationConfig()
      if (generation) await writeJson(join(folder, 'generation_config.json'), generation, { indent: 2 })
      this.tokenizer?.saveTo(folder)
    })
  }
}
