import { argumentError } from '../../../base/check.js'
import { loadPretrained, savePretrained } from '../../../models/own-module.js'
import { Module } from '../../../nn/module.js'
import type { FactoryOptions } from '../../../nn/parameter.js'
import { scope, type Tensor } from '../../../tensor/index.js'
import type { DstConfig } from './config.js'
import { DstHeads, type DstHeadsOptions, type DstHeadsOutput, type DstLabels } from './heads.js'

/** Inputs of the encoder: one text and two clips per turn, the user's and the system's. */
export interface DstEncoderInputs {
  /** int64 [batch, tokens] */
  inputIds: Tensor
  /** bool [batch, tokens] */
  attentionMask: Tensor
  /** int64 [batch, tokens]: 0 for the user's segment, 1 after it. */
  tokenTypeIds: Tensor
  /** float32 [2 batch, samples]: the user's clip and the system's clip of each turn. */
  inputValues: Tensor
  /** int64 [2 batch]: samples of each clip; 0 without speech. */
  audioLengths: Tensor
  audiosPerText: 2
}

/** A network that fuses text and speech, such as `Spectra`. */
export type DstEncoder = Module & {
  /** Return states [batch, tokens + frames, hidden], text first, and their mask, bool [batch, tokens + frames]. */
  forward(inputs: DstEncoderInputs): DstFusedStates | Promise<DstFusedStates>
}

export interface DstFusedStates {
  lastHiddenState: Tensor
  attentionMask: Tensor
}

export type DstInputs = DstEncoderInputs & Partial<DstLabels>

/**
 * SPECTRA with the heads of dialog state tracking. The state dict has `model.<encoder>`, `class_<slot>`, `token_<slot>` and
 * `refer_<slot>`, like that of the published trainer.
 */
export class SpectraForDst<E extends DstEncoder = DstEncoder> extends Module {
  readonly model: E
  readonly #heads: DstHeads
  readonly #options: DstHeadsOptions

  constructor(encoder: E, options: DstHeadsOptions) {
    super()
    if (!(encoder instanceof Module)) throw argumentError('SpectraForDst', 'encoder', 'a Module', encoder)
    this.model = encoder
    this.#heads = new DstHeads(options)
    this.#options = options
  }

  /**
   * Load a folder written by `save`, in evaluation mode. `build` creates the encoder from its configuration, such as `Spectra.fromConfig`.
   * @throws CheckpointError, ConfigError
   */
  static load<E extends DstEncoder>(
    directory: string,
    build: (config: object) => E,
    factory: FactoryOptions = {},
  ): Promise<SpectraForDst<E>> {
    return loadPretrained(
      directory,
      ({ encoder, heads }: SavedConfig) => new SpectraForDst(build(encoder), { ...heads, ...factory }),
    )
  }

  get config(): DstConfig {
    return this.#options.config
  }

  /** Save config.json, which includes the encoder's configuration, and model.safetensors. */
  save(directory: string): Promise<void> {
    const { device: _device, dtype: _dtype, ...heads } = this.#options
    const { config: encoder = {} } = this.model as { config?: object }
    return savePretrained(directory, this, { encoder, heads } satisfies SavedConfig)
  }

  /** Run encoder and heads. With all four labels, the output has a `loss`, the sum over turns and slots. */
  override async forward(inputs: DstInputs): Promise<DstHeadsOutput> {
    const { classIds, startPositions, endPositions, referIds, ...encoderInputs } = inputs
    return scope(async () => {
      const { lastHiddenState, attentionMask } = await this.model.forward(encoderInputs)
      const labels = classIds &&
        startPositions &&
        endPositions &&
        referIds && { classIds, startPositions, endPositions, referIds }
      this.#heads.training = this.training
      return this.#heads.forward(lastHiddenState, attentionMask, labels || undefined)
    })
  }

  /** Return the encoder and the heads as direct children, without a name for the group of heads. */
  protected override members(): Iterable<[string, unknown]> {
    return [['model', this.model], ...this.#heads.namedChildren()]
  }
}

interface SavedConfig {
  encoder: object
  heads: Omit<DstHeadsOptions, 'device' | 'dtype'>
}
