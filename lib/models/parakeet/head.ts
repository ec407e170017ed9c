import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { AudioClip } from '../../audio/clip.js'
import type { NemoLogMel } from '../../audio/features.js'
import { writeFolderAtomically } from '../../base/atomic-folder.js'
import { CheckpointError } from '../../base/errors.js'
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

/** Tokens that greedy decoding finds in a row: one entry of each list per token. */
export interface ParakeetHypothesis {
  /** Token ids without blanks. */
  tokens: number[]
  /** Frame of the encoder at which each token starts. */
  starts: number[]
  /** Number of frames of each token: CTC, the run of equal predictions; RNN-T, 1; TDT, as predicted. */
  durations: number[]
}

/** Static members of a class of Parakeet models. */
export interface ParakeetHeadClass {
  readonly kind: 'ctc' | 'rnnt' | 'tdt'
  readonly sizes: Record<string, NetworkConfig>
  readonly keys: ConfigKeys
}

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

  /** Decode each row greedily, without a graph. */
  generate(inputs: FastConformerInputs): Promise<ParakeetHypothesis[]> {
    return noGrad(() =>
      scope(async () => {
        const { inputFeatures, attentionMask = null } = inputs
        const { lastHiddenState, attentionMask: valid } = await this.encoder.forward({ inputFeatures, attentionMask })
        const [batch, frames] = lastHiddenState.shape as [number, number]
        const lengths = valid ? valid.sum([-1]) : lastHiddenState.newFull([batch], frames, { dtype: 'int64' })
        return this.decodeStates(lastHiddenState, lengths)
      }),
    )
  }

  /** Decode states of the encoder [batch, frames, hiddenSize], of which `lengths` int64 [batch] are valid. @internal */
  abstract decodeStates(states: Tensor, lengths: Tensor): Promise<ParakeetHypothesis[]>

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
